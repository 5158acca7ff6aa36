// SPDX-License-Identifier: Apache-2.0
//! The device's configuration space over GET_CONFIG and SET_CONFIG, at any offset and size.
use crate::error::{Error, Result};
use crate::protocol::request;
use crate::session::Session;

/// Who changes the configuration (the flags of SET_CONFIG).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// The guest's driver wrote a writable field.
    ByDriver = 0,
    /// A migrating VMM restores it.
    ByMigration = 1,
}

fn payload(offset: u32, size: u32, flags: u32, bytes: &[u8]) -> Vec<u8> {
    let mut payload = Vec::with_capacity(12 + bytes.len());
    for word in [offset, size, flags] {
        payload.extend_from_slice(&word.to_le_bytes());
    }
    payload.extend_from_slice(bytes);
    payload
}

impl Session {
    /// `size` bytes of configuration space at `offset`.
    ///
    /// # Errors
    /// Where the answer is not of exactly that place and size: a shorter one breaks VMMs.
    pub fn config(&self, offset: u32, size: u32) -> Result<Vec<u8>> {
        let number = request::GET_CONFIG;
        let asked = payload(offset, size, 0, &vec![0; size as usize]);
        let answer = self.ask(number, &asked, &[])?;
        if answer.payload.len() != asked.len() || answer.payload[..8] != asked[..8] {
            return Err(Error::BadReply {
                request: number,
                problem: format!(
                    "{} bytes for {size} at {offset}: {:02x?}",
                    answer.payload.len(),
                    &answer.payload[..answer.payload.len().min(12)]
                ),
            });
        }
        Ok(answer.payload[12..].to_vec())
    }

    /// The little-endian u32 at `offset` of configuration space.
    ///
    /// # Errors
    /// As [`Self::config`].
    pub fn config_u32(&self, offset: u32) -> Result<u32> {
        let bytes = self.config(offset, 4)?;
        Ok(u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]))
    }

    /// Write `bytes` into configuration space at `offset`.
    ///
    /// # Errors
    /// As [`Self::tell`].
    pub fn write_config(&self, offset: u32, bytes: &[u8], change: Change) -> Result<()> {
        let payload = payload(offset, bytes.len() as u32, change as u32, bytes);
        self.tell(request::SET_CONFIG, &payload, &[])
    }
}
