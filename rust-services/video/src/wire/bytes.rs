// SPDX-License-Identifier: Apache-2.0

//! Little-endian words in and out.

use super::Refusal;

/// Reads words from the beginning of what is left.
pub(super) struct Reader<'a>(pub(super) &'a [u8]);

impl Reader<'_> {
    pub(super) fn array<const N: usize>(&mut self) -> Result<[u8; N], Refusal> {
        let (now, later) = self
            .0
            .split_first_chunk()
            .ok_or(Refusal::InvalidParameter)?;
        self.0 = later;
        Ok(*now)
    }

    pub(super) fn u32(&mut self) -> Result<u32, Refusal> {
        self.array().map(u32::from_le_bytes)
    }

    pub(super) fn u64(&mut self) -> Result<u64, Refusal> {
        self.array().map(u64::from_le_bytes)
    }

    pub(super) fn u32s<const N: usize>(&mut self) -> Result<[u32; N], Refusal> {
        let mut all = [0; N];
        for one in &mut all {
            *one = self.u32()?;
        }
        Ok(all)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Runs of guest memory: address, length, padding.
    pub(super) fn runs(&mut self, count: u32) -> Result<Vec<(u64, u32)>, Refusal> {
        // As many as there are bytes for, whatever the count says.
        let most = self.0.len().checked_div(16).unwrap_or(0);
        if count as usize > most {
            return Err(Refusal::InvalidParameter);
        }
        let mut runs = Vec::with_capacity(count as usize);
        for _ in 0..count {
            let (address, len) = (self.u64()?, self.u32()?);
            self.u32()?;
            runs.push((address, len));
        }
        Ok(runs)
    }
}

/// Writes words.
#[derive(Default)]
pub(super) struct Writer(pub(super) Vec<u8>);

impl Writer {
    /// Begins with a header.
    pub(super) fn begin(kind: u32, stream: u32) -> Self {
        Self::default().u32(kind).u32(stream)
    }

    pub(super) fn u32(mut self, value: u32) -> Self {
        self.0.extend(value.to_le_bytes());
        self
    }

    pub(super) fn u64(mut self, value: u64) -> Self {
        self.0.extend(value.to_le_bytes());
        self
    }

    pub(super) fn u32s(self, values: &[u32]) -> Self {
        values.iter().fold(self, |writer, value| writer.u32(*value))
    }

    pub(super) fn padding(self) -> Self {
        self.u32(0)
    }
}
