//! Running the program on frames by `BPF_PROG_TEST_RUN`.

use aya::programs::{TestRun as _, TestRunAttrs, TestRunOptions, Xdp};
use nomail_common::abi::{self, TEXT_MAX};

use super::{error::BpfError, object::program, program::Guard};

impl Guard {
    /// Runs the program on a frame: its action, and the mean time of `repeat` runs in
    /// nanoseconds.
    pub fn test_run(&self, frame: &[u8], repeat: u32) -> Result<(u32, u128), BpfError> {
        let result = self.loaded_program()?.test_run(TestRunOptions {
            data_in: Some(frame),
            repeat,
            ..TestRunOptions::default()
        })?;
        self.show_trace();
        Ok((result.return_value, result.duration.as_nanos()))
    }

    /// Runs the program once on a live frame: if it passes, it arrives at the interface as if
    /// it came from the wire.
    pub fn let_in(&self, interface: u32, frame: &[u8]) -> Result<(), BpfError> {
        self.loaded_program()?.test_run(TestRunOptions {
            data_in: Some(frame),
            ctx_in: Some(&live_context(frame.len(), interface)),
            attrs: TestRunAttrs::new().xdp_live_frames(1),
            ..TestRunOptions::default()
        })?;
        Ok(())
    }

    /// Runs the program once on a frame: its action, and the frame afterwards.
    pub fn test_answer(&mut self, frame: &[u8]) -> Result<(u32, Vec<u8>), BpfError> {
        // A reply may be longer than the frame.
        let mut out = vec![0; frame.len() + TEXT_MAX];
        let result = program(&mut self.ebpf, abi::PROGRAM)?.test_run(TestRunOptions {
            data_in: Some(frame),
            data_out: Some(&mut out),
            repeat: 1,
            ..TestRunOptions::default()
        })?;
        self.show_trace();
        out.truncate(result.data_size_out as usize);
        Ok((result.return_value, out))
    }

    /// Logs the steps of the frames.
    fn show_trace(&self) {
        #[cfg(feature = "trace")]
        if let Some(trace) = &self.trace {
            trace.flush();
        }
    }

    fn loaded_program(&self) -> Result<&Xdp, BpfError> {
        let program = self.ebpf.program(abi::PROGRAM);
        Ok(program.ok_or(BpfError::Missing(abi::PROGRAM))?.try_into()?)
    }
}

/// The context of a run (`xdp_md` of the kernel): data, its end, metadata, ingress interface,
/// queue, egress interface.
fn live_context(length: usize, interface: u32) -> [u8; 24] {
    let mut context = [0; 24];
    for (slot, word) in context
        .chunks_exact_mut(4)
        .zip([0, length as u32, 0, interface])
    {
        slot.copy_from_slice(&word.to_ne_bytes());
    }
    context
}
