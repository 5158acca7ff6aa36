// SPDX-License-Identifier: Apache-2.0

//! Resources in the guest's memory.

use virtio_device::{Memory, Pages};

use crate::model::Guest;

/// Bytes of a plane, at most.
const MOST_BYTES: usize = 256 << 20;
/// Runs of a plane, at most.
const MOST_RUNS: usize = 1 << 17;

impl Guest for Memory {
    type Buffer = Pages;

    fn buffer(&self, runs: &[(u64, u32)]) -> Option<Pages> {
        if runs.len() > MOST_RUNS {
            return None;
        }
        let pages = Pages::new(self, joined(runs)).ok()?;
        (!pages.is_empty() && pages.len() <= MOST_BYTES).then_some(pages)
    }

    fn len(&self, buffer: &Pages) -> usize {
        buffer.len()
    }

    fn read(&self, buffer: &Pages, offset: usize, bytes: &mut [u8]) -> bool {
        buffer.read(self, offset, bytes).is_ok()
    }

    fn write(&self, buffer: &Pages, offset: usize, bytes: &[u8]) -> bool {
        buffer.write(self, offset, bytes).is_ok()
    }
}

/// Runs that follow each other become one: each access looks for its run from the first.
fn joined(runs: &[(u64, u32)]) -> Vec<(u64, u32)> {
    let mut joined: Vec<(u64, u32)> = Vec::with_capacity(runs.len());
    for (address, len) in runs {
        let grown = joined.last().and_then(|(last, so_far)| {
            let end = last.checked_add((*so_far).into())?;
            (end == *address)
                .then(|| so_far.checked_add(*len))
                .flatten()
        });
        match (grown, joined.last_mut()) {
            (Some(len), Some(last)) => last.1 = len,
            _ => joined.push((*address, *len)),
        }
    }
    joined
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_that_follow_each_other_become_one() {
        let runs = [(0x1000, 0x1000), (0x2000, 16), (0x3000, 1), (0x3001, 2)];
        assert_eq!(joined(&runs), [(0x1000, 0x1010), (0x3000, 3)]);
        assert_eq!(joined(&[(u64::MAX, 1), (0, 1)]), [(u64::MAX, 1), (0, 1)]);
        let long = [(0, u32::MAX), (u64::from(u32::MAX), 1)];
        assert_eq!(joined(&long), long);
    }
}
