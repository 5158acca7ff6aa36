// SPDX-License-Identifier: Apache-2.0

//! The authentication key, and what is signed with it (HMAC-SHA-256).

use hmac::{Hmac, Mac};
use sha2::Sha256;
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use crate::wire::{Frame, KEY_SIZE};

/// Bytes that SHA-256 takes at once.
const HASH_BLOCK: usize = 64;

/// A key. Erased from memory when it is dropped, and never shown.
#[derive(Clone)]
pub struct Key(Zeroizing<[u8; KEY_SIZE]>);

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Key(…)")
    }
}

impl Key {
    /// A key of these bytes.
    #[must_use]
    pub fn new(bytes: [u8; KEY_SIZE]) -> Self {
        Self(Zeroizing::new(bytes))
    }

    /// Its bytes, to be stored.
    #[must_use]
    pub fn bytes(&self) -> &[u8; KEY_SIZE] {
        &self.0
    }

    /// Whether it is these bytes, in a time that does not depend on them.
    #[must_use]
    pub fn is(&self, bytes: &[u8; KEY_SIZE]) -> bool {
        self.0.ct_eq(bytes).into()
    }

    fn hmac(&self) -> Hmac<Sha256> {
        // A key shorter than the hash's block is followed by zeros (FIPS 198-1, 4).
        let mut block = Zeroizing::new([0; HASH_BLOCK]);
        if let Some((start, _)) = block.split_first_chunk_mut::<KEY_SIZE>() {
            *start = *self.0;
        }
        Hmac::<Sha256>::new((&*block).into())
    }

    /// The MAC of frames that belong together: of all of them, one after the other.
    #[must_use]
    pub fn sign<'a>(&self, frames: impl IntoIterator<Item = &'a Frame>) -> [u8; KEY_SIZE] {
        self.of_frames(frames).finalize().into_bytes().into()
    }

    /// Whether the last frame has the MAC of all, in a time that does not depend on it.
    #[must_use]
    pub fn verifies(&self, frames: &[Frame]) -> bool {
        frames
            .last()
            .is_some_and(|last| self.of_frames(frames).verify_slice(&last.key_mac).is_ok())
    }

    /// A key for another purpose, from this one: nothing about this one follows from it.
    #[must_use]
    pub fn derive(&self, purpose: &[u8]) -> Self {
        let mut hmac = self.hmac();
        hmac.update(purpose);
        Self::new(hmac.finalize().into_bytes().into())
    }

    fn of_frames<'a>(&self, frames: impl IntoIterator<Item = &'a Frame>) -> Hmac<Sha256> {
        let mut hmac = self.hmac();
        for frame in frames {
            hmac.update(frame.authenticated());
        }
        hmac
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::RequestType;

    fn frame(fill: u8) -> Frame {
        let mut frame = Frame::of(RequestType::DataWrite.code());
        frame.stuff = [0x55; 196];
        frame.data = [fill; 256];
        frame.write_counter.set(7);
        frame.address.set(3);
        frame.block_count.set(2);
        frame
    }

    /// Calculated by Python's hmac module over the same 284 bytes each.
    const OF_ONE: &str = "98723ba75616e849790ecc9bc71f0959fce3eeb8dbc16374bc6184dfb9b31567";
    const OF_TWO: &str = "357a885659b4db4aaf55d2c1faf008e20c626e7b86b6394eccade7a700d764b0";

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    #[test]
    fn a_mac_is_what_another_implementation_says() {
        let mut bytes = [0; KEY_SIZE];
        bytes.iter_mut().zip(0..).for_each(|(byte, at)| *byte = at);
        let key = Key::new(bytes);
        assert_eq!(hex(&key.sign(&[frame(0xaa)])), OF_ONE);
        assert_eq!(hex(&key.sign(&[frame(0xaa), frame(0xbb)])), OF_TWO);
    }

    #[test]
    fn any_other_bit_is_another_mac_but_padding_is_not() {
        let key = Key::new([7; 32]);
        let mut frames = [frame(1), frame(2)];
        frames[1].key_mac = key.sign(&frames);
        assert!(key.verifies(&frames));
        frames[0].stuff[0] ^= 1;
        assert!(key.verifies(&frames));
        frames[0].data[255] ^= 1;
        assert!(!key.verifies(&frames));
        frames[0].data[255] ^= 1;
        frames[1].key_mac[31] ^= 1;
        assert!(!key.verifies(&frames));
        assert!(!key.verifies(&[]));
    }

    #[test]
    fn a_key_is_not_shown() {
        assert_eq!(format!("{:?}", Key::new([1; 32])), "Key(…)");
        assert!(Key::new([1; 32]).is(&[1; 32]));
        assert!(!Key::new([1; 32]).is(&[2; 32]));
    }
}
