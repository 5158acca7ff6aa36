// SPDX-License-Identifier: Apache-2.0

//! Memory for pictures that is used again: the kernel clears each new page first.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Pieces that are kept: one is written to the guest while the next one comes.
const MOST: usize = 2;

/// Pieces of memory that nobody uses. Clones are the same one.
#[derive(Clone, Debug, Default)]
pub(super) struct Shelf {
    pieces: Arc<Mutex<Vec<Vec<u8>>>>,
}

impl Shelf {
    fn lock(&self) -> MutexGuard<'_, Vec<Vec<u8>>> {
        self.pieces.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A piece with whatever was in it last.
    pub(super) fn take(&self) -> Piece {
        Piece {
            bytes: self.lock().pop().unwrap_or_default(),
            shelf: self.clone(),
        }
    }
}

/// A piece in use.
#[derive(Debug)]
pub(crate) struct Piece {
    /// Of any length.
    pub(crate) bytes: Vec<u8>,
    shelf: Shelf,
}

impl AsRef<[u8]> for Piece {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Piece {
    fn drop(&mut self) {
        let bytes = std::mem::take(&mut self.bytes);
        // The memory of large pictures is not kept for small ones.
        let fits = bytes.capacity() <= bytes.len().saturating_mul(2);
        let mut pieces = self.shelf.lock();
        if fits && pieces.len() < MOST {
            pieces.push(bytes);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_used_is_used_again_and_no_more_than_needed_is_kept() {
        let shelf = Shelf::default();
        let mut piece = shelf.take();
        piece.bytes.resize(1000, 7);
        let at = piece.bytes.as_ptr();
        drop(piece);
        assert_eq!(shelf.take().bytes.as_ptr(), at);
        drop((shelf.take(), shelf.take(), shelf.take()));
        assert_eq!(shelf.lock().len(), MOST);
    }

    #[test]
    fn the_memory_of_a_large_picture_is_not_kept_for_small_ones() {
        let shelf = Shelf::default();
        let mut piece = shelf.take();
        piece.bytes.resize(1 << 20, 7);
        drop(piece);
        let mut piece = shelf.take();
        assert!(piece.bytes.capacity() >= 1 << 20);
        piece.bytes.resize(100, 7);
        drop(piece);
        assert!(shelf.lock().iter().all(|kept| kept.capacity() < 1 << 20));
    }
}
