// SPDX-License-Identifier: Apache-2.0

//! Other stores on the same card, before a new one is made there.
//!
//! Blocks that a guest has not written yet are zeros, so zeros alone do not say that a region is
//! free. The walk goes from store to store: inside of one lies what its guest says, which may look
//! like anything.

use std::io;

use super::Card;
use super::region::Region;
use crate::key::Key;
use crate::store::{Medium, blocks_of_store};
use crate::wire::BLOCK_SIZE;

/// Blocks that are looked at at once.
const AT_ONCE: u16 = 32;

/// The first block of a store that begins before `first_block` and reaches into it, if there is one.
///
/// # Errors
/// The card does not answer, or not with this key.
pub fn reaches_into(
    card: Box<dyn Card>,
    host_key: Key,
    first_block: u16,
) -> io::Result<Option<u16>> {
    let mut before = Region::new(card, host_key, 0, first_block);
    let mut at = 0_u16;
    while at < first_block {
        let count = first_block.saturating_sub(at).min(AT_ONCE);
        let mut bytes = vec![0; BLOCK_SIZE.saturating_mul(count.into())];
        before.read(u64::from(at).saturating_mul(BLOCK_SIZE as u64), &mut bytes)?;
        let mut blocks = (at..).zip(bytes.chunks(BLOCK_SIZE));
        let store = blocks.find_map(|(number, block)| Some((number, blocks_of_store(block)?)));
        at = match store {
            Some((number, blocks)) => {
                let end = u64::from(number).saturating_add(blocks);
                if end > first_block.into() {
                    return Ok(Some(number));
                }
                u16::try_from(end).unwrap_or(u16::MAX)
            }
            None => at.saturating_add(count),
        };
    }
    Ok(None)
}
