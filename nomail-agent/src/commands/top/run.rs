//! `top` on a terminal, or as plain text. It asks the agent on a thread of its own, so that an
//! agent that does not answer does not block the keys.

use std::{
    io::{self, IsTerminal as _, Write as _},
    mem::ManuallyDrop,
    os::fd::AsFd as _,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use crossterm::event::{self, Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};
use nix::{
    errno::Errno,
    poll::{PollFd, PollFlags, PollTimeout, poll},
};
use ratatui::DefaultTerminal;
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::{mpsc, oneshot},
};

use super::{
    model::{KeyPress, Model},
    view,
};
use crate::{cli::TopArgs, status::Status};

/// Sources of a status: those with the most SYNs so far.
const SOURCES_ASKED: usize = 1000;

/// A status or why there is none, and the time since the start of `top`.
type Poll = (Duration, Result<Status, String>);

/// Shows the statuses that `ask` gives for a number of sources, until the user quits.
///
/// # Errors
/// When the first status cannot be had, or the terminal cannot be used.
pub fn run(
    asked: &TopArgs,
    mut ask: impl FnMut(usize) -> Result<Status> + Send + 'static,
) -> Result<()> {
    let begun = Instant::now();
    if !asked.batch && !io::stdout().is_terminal() {
        bail!("the output is no terminal: `top --batch` writes plain text");
    }
    // A wrong socket is an error at once.
    let mut model = Model::new(SOURCES_ASKED);
    let first = ask(SOURCES_ASKED)?;
    model.take(begun.elapsed(), Ok(first));
    let poll = move || {
        let status = ask(SOURCES_ASKED).map_err(|error| format!("{error:#}"));
        (begun.elapsed(), status)
    };
    if asked.batch {
        return batch(asked, model, poll);
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot make an event loop")?;
    let polls = ask_on_a_thread(asked.interval, poll)?;
    let mut screen = Screen::enter()?;
    let keys = read_on_a_thread()?;
    let gone = watch_on_a_thread()?;
    let shown = live(&mut screen.0, model, polls, keys);
    runtime.block_on(async {
        tokio::select! {
            // A closed terminal is an end like others.
            biased;
            _ = gone => Ok(()),
            ended = shown => match ended {
                Err(_) if is_gone(PollTimeout::ZERO) == Ok(true) => Ok(()),
                ended => ended,
            },
        }
    })
}

/// Prints frames, the first after one interval: a rate needs two statuses.
fn batch(asked: &TopArgs, mut model: Model, mut poll: impl FnMut() -> Poll) -> Result<()> {
    let mut out = io::stdout().lock();
    let mut due = Instant::now();
    let mut number = 0;
    while asked.frames.is_none_or(|frames| number < frames) {
        due = next(due, asked.interval);
        thread::sleep(due.saturating_duration_since(Instant::now()));
        let (at, status) = poll();
        model.take(at, status);
        number += 1;
        let gap = if number > 1 { "\n" } else { "" };
        let text = view::text(&model, number, asked.sources);
        let written = write!(out, "{gap}{text}").and_then(|()| out.flush());
        match written {
            // The reader has closed its end, as `head` does.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(()),
            written => written.context("standard output cannot be written")?,
        }
    }
    Ok(())
}

/// When the next status is due. Missed ones are not made up for.
fn next(due: Instant, interval: Duration) -> Instant {
    (due + interval).max(Instant::now())
}

fn ask_on_a_thread(
    interval: Duration,
    mut poll: impl FnMut() -> Poll + Send + 'static,
) -> Result<mpsc::Receiver<Poll>> {
    let (to, polls) = mpsc::channel(1);
    let ask = move || {
        let mut due = Instant::now();
        loop {
            due = next(due, interval);
            thread::sleep(due.saturating_duration_since(Instant::now()));
            if to.blocking_send(poll()).is_err() {
                return;
            }
        }
    };
    thread::Builder::new()
        .name("ask".to_owned())
        .spawn(ask)
        .context("cannot make a thread")?;
    Ok(polls)
}

/// Reads the keys on a thread of its own: once the terminal is closed, crossterm reads its
/// end again and again and never returns.
fn read_on_a_thread() -> Result<mpsc::Receiver<io::Result<Event>>> {
    let (to, events) = mpsc::channel(16);
    let read = move || {
        loop {
            let event = event::read();
            let failed = event.is_err();
            if to.blocking_send(event).is_err() || failed {
                return;
            }
        }
    };
    thread::Builder::new()
        .name("keys".to_owned())
        .spawn(read)
        .context("cannot make a thread")?;
    Ok(events)
}

/// Whether the other end of the terminal closes within the time.
fn is_gone(within: PollTimeout) -> nix::Result<bool> {
    let terminal = io::stdout();
    // POLLHUP is reported without being asked for.
    let mut asked = [PollFd::new(terminal.as_fd(), PollFlags::empty())];
    poll(&mut asked, within).map(|count| count > 0)
}

/// Waits on a thread until the other end of the terminal is closed. Nothing has to be
/// read or written for that, and no signal has to arrive: only the leader of a session
/// gets one.
fn watch_on_a_thread() -> Result<oneshot::Receiver<()>> {
    let (to, gone) = oneshot::channel();
    let watch = move || {
        while matches!(is_gone(PollTimeout::NONE), Ok(false) | Err(Errno::EINTR)) {}
        // The receiver may have ended.
        let _ = to.send(());
    };
    thread::Builder::new()
        .name("terminal".to_owned())
        .spawn(watch)
        .context("cannot make a thread")?;
    Ok(gone)
}

/// The terminal in raw mode; restored on drop, and by a hook on a panic.
///
/// ratatui's own drop prints an error if the terminal is gone, and panics as stderr
/// is gone with it.
struct Screen(ManuallyDrop<DefaultTerminal>);

impl Screen {
    fn enter() -> Result<Self> {
        match ratatui::try_init() {
            Ok(terminal) => Ok(Self(ManuallyDrop::new(terminal))),
            Err(error) => {
                // It may be half set up.
                let _ = ratatui::try_restore();
                Err(error).context("the terminal cannot be used: `top --batch` writes plain text")
            }
        }
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        // A closed terminal cannot be restored.
        let _ = self.0.show_cursor();
        let _ = ratatui::try_restore();
    }
}

async fn live(
    terminal: &mut DefaultTerminal,
    mut model: Model,
    mut polls: mpsc::Receiver<Poll>,
    mut events: mpsc::Receiver<io::Result<Event>>,
) -> Result<()> {
    let mut terminate = signal(SignalKind::terminate()).context("SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("SIGINT")?;
    let mut hangup = signal(SignalKind::hangup()).context("SIGHUP")?;
    while !model.is_done() {
        terminal
            .draw(|frame| view::draw(&model, frame))
            .context("the terminal cannot be written")?;
        tokio::select! {
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
            _ = hangup.recv() => break,
            event = events.recv() => match event {
                Some(Ok(Event::Key(key))) if is_ctrl_c(&key) => break,
                Some(Ok(Event::Key(key))) => {
                    if let Some(key) = key_of(&key) {
                        model.press(key);
                    }
                }
                // Drawing takes up a new size.
                Some(Ok(_)) => {}
                Some(Err(error)) => return Err(error).context("the terminal cannot be read"),
                None => break,
            },
            poll = polls.recv() => match poll {
                Some((at, status)) => model.take(at, status),
                None => bail!("the thread that asks the agent has ended"),
            },
        }
    }
    Ok(())
}

/// In raw mode Ctrl-C is a key like others.
fn is_ctrl_c(key: &KeyEvent) -> bool {
    key.code == KeyCode::Char('c') && key.modifiers.contains(KeyModifiers::CONTROL)
}

fn key_of(key: &KeyEvent) -> Option<KeyPress> {
    if key.kind == KeyEventKind::Release
        || key
            .modifiers
            .intersects(KeyModifiers::CONTROL | KeyModifiers::ALT)
    {
        return None;
    }
    match key.code {
        KeyCode::Char(character) => Some(KeyPress::Character(character)),
        KeyCode::Enter => Some(KeyPress::Enter),
        KeyCode::Esc => Some(KeyPress::Escape),
        KeyCode::Backspace => Some(KeyPress::Backspace),
        _ => None,
    }
}
