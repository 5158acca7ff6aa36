// SPDX-License-Identifier: Apache-2.0
//! The configuration that a guest's device was made from, in memory that outlives the service.
//!
//! A guest's driver asks once what its device has. A service that takes the place of another one
//! under a running guest must be the same device, whatever has become of the file meanwhile: it
//! may have been edited for the next start, or be wrong. So the text that was read is kept in a
//! memory file of the keeper, which empties it before it starts a service that no guest waits for.

use crate::inherited_fd::{self, InheritedFdError};
use std::fs::File;
use std::io;
use std::os::fd::RawFd;
use std::os::unix::fs::FileExt;

/// The length of the text stands before it, and is written last.
const HEAD: u64 = 8;

/// The text that the former service was started with.
#[derive(Debug)]
pub(crate) struct UsedConfig {
    memory: File,
}

impl UsedConfig {
    /// Takes the memory that the keeper handed over.
    pub(crate) fn take(number: RawFd) -> Result<Self, InheritedFdError> {
        let memory = File::from(inherited_fd::take(number)?);
        Ok(Self { memory })
    }

    /// The text, where a guest waits for its device.
    pub(crate) fn text(&self) -> Option<String> {
        let mut head = [0; 8];
        self.memory.read_exact_at(&mut head, 0).ok()?;
        let length = u64::from_le_bytes(head);
        let there = self.memory.metadata().ok()?.len().checked_sub(HEAD)?;
        if length == 0 || length > there {
            return None;
        }
        let mut text = vec![0; usize::try_from(length).ok()?];
        self.memory.read_exact_at(&mut text, HEAD).ok()?;
        String::from_utf8(text).ok()
    }

    /// Keeps the text for a successor. One that dies meanwhile leaves none.
    pub(crate) fn keep(&self, text: &str) -> io::Result<()> {
        self.memory.set_len(0)?;
        self.memory.write_all_at(text.as_bytes(), HEAD)?;
        let length = u64::try_from(text.len()).unwrap_or(0);
        self.memory.write_all_at(&length.to_le_bytes(), 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn empty() -> UsedConfig {
        UsedConfig {
            memory: tempfile::tempfile().unwrap(),
        }
    }

    #[test]
    fn a_text_is_kept_and_replaced_by_a_shorter_one() {
        let used = empty();
        assert_eq!(used.text(), None);
        used.keep("a longer text").unwrap();
        used.keep("short").unwrap();
        assert_eq!(used.text().as_deref(), Some("short"));
    }

    #[test]
    fn a_text_whose_writer_died_is_none() {
        let used = empty();
        used.memory.write_all_at(b"half of", HEAD).unwrap();
        assert_eq!(used.text(), None);
        used.memory.write_all_at(&100u64.to_le_bytes(), 0).unwrap();
        assert_eq!(used.text(), None);
    }
}
