//! The allow and deny lists in the kernel: a map for each of two sets, of which the
//! configuration chooses one, so that no packet is judged by half a list. What changes is a
//! new map, written in slices, between which the caller does all else.

use std::{mem, sync::Arc};

use aya::{
    Ebpf,
    maps::{Array, ArrayOfMaps, MapData},
};
use nomail_common::{
    abi::{self, LIST_FLAGS, MAX_BANS, MAX_LIST_PREFIXES},
    guard::lists::Page,
};

use super::{error::BpfError, list_words::ListWords, object::take_map, policy::Lists};

/// Most pages that a slice writes: a millisecond.
const SLICE: usize = 512;

/// The words of lists, as values of a map.
type ListMap = Array<MapData, Page>;

pub(super) struct ListMaps {
    sets: ArrayOfMaps<MapData, ListMap>,
    /// What a set has that is not in use.
    none: ListMap,
    /// The lists that are written.
    next: Option<NewLists>,
}

/// Lists for a set that is not in use.
struct NewLists {
    set: u32,
    words: ListWords,
    state: WriteState,
}

enum WriteState {
    /// The words are not complete.
    Words,
    /// The map has the first so many pages.
    Pages(ListMap, usize),
    /// The set has the map.
    Complete,
}

impl ListMaps {
    pub(super) fn take(ebpf: &mut Ebpf) -> Result<Self, BpfError> {
        Ok(Self {
            sets: take_map(ebpf, abi::LISTS_MAP)?.try_into()?,
            none: Array::create(1, LIST_FLAGS)?,
            next: None,
        })
    }

    /// Replaces a set that is not in use by `lists`. Returns [`abi::Config::lists`].
    pub(super) fn write(&mut self, set: u32, lists: &Arc<Lists>) -> Result<u32, BpfError> {
        loop {
            if let Some(filled) = self.write_slice(set, lists)? {
                return Ok(filled);
            }
        }
    }

    /// Writes a slice of what [`ListMaps::write`] does; none until the last one.
    pub(super) fn write_slice(
        &mut self,
        set: u32,
        lists: &Arc<Lists>,
    ) -> Result<Option<u32>, BpfError> {
        let mut next = match self.next.take() {
            Some(next) if next.is_of(set, lists) => next,
            _ => NewLists::new(set, lists)?,
        };
        next.write_slice(&mut self.sets)?;
        let complete = matches!(next.state, WriteState::Complete);
        let filled = next.words.filled();
        self.next = Some(next);
        Ok(complete.then_some(filled))
    }

    /// Forgets the lists that were written, which are in use now, and frees the memory of the
    /// set that no longer is, if it has any.
    pub(super) fn settle(&mut self, old: Option<u32>) -> Result<(), BpfError> {
        self.next = None;
        if let Some(old) = old {
            self.sets.set(old, &self.none, 0)?;
        }
        Ok(())
    }
}

impl NewLists {
    fn new(set: u32, lists: &Arc<Lists>) -> Result<Self, BpfError> {
        for (list, max) in [
            (&lists.allow, MAX_LIST_PREFIXES),
            (&lists.deny, MAX_LIST_PREFIXES + MAX_BANS),
        ] {
            if list.len() > max as usize {
                return Err(BpfError::TooManyPrefixes(list.len()));
            }
        }
        Ok(Self {
            set,
            words: ListWords::new(Arc::clone(lists)),
            state: WriteState::Words,
        })
    }

    fn is_of(&self, set: u32, lists: &Arc<Lists>) -> bool {
        let ours = self.words.lists();
        self.set == set && (Arc::ptr_eq(ours, lists) || ours == lists)
    }

    fn write_slice(&mut self, sets: &mut ArrayOfMaps<MapData, ListMap>) -> Result<(), BpfError> {
        self.state = match mem::replace(&mut self.state, WriteState::Words) {
            WriteState::Words if !self.words.work()? => WriteState::Words,
            // Nothing looks into an empty one.
            WriteState::Words if self.words.filled() == 0 => WriteState::Complete,
            WriteState::Words => {
                let pages = self.words.pages().len() as u32;
                WriteState::Pages(Array::create(pages, LIST_FLAGS)?, 0)
            }
            WriteState::Pages(mut map, written) => {
                let pages = self.words.pages().iter().zip(0..).skip(written).take(SLICE);
                for (page, index) in pages {
                    map.set(index, page, 0)?;
                }
                if written + SLICE < self.words.pages().len() {
                    WriteState::Pages(map, written + SLICE)
                } else {
                    sets.set(self.set, &map, 0)?;
                    WriteState::Complete
                }
            }
            WriteState::Complete => WriteState::Complete,
        };
        Ok(())
    }
}
