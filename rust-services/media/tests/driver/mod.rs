// SPDX-License-Identifier: Apache-2.0

//! A driver that speaks V4L2 to the service.

use std::time::Duration;

use frontend::Deadline;
use frontend::clients::media::MediaClient;
use frontend::service_under_test::ServiceUnderTest;
use zerocopy::{FromBytes, Immutable, IntoBytes};

/// A guest whose programs have sessions.
pub(crate) struct Driver(pub(crate) MediaClient);

impl Driver {
    pub(crate) fn new(service: &ServiceUnderTest) -> Self {
        // One with codecs looks at them first.
        let deadline = Deadline::after(Duration::from_secs(120));
        let stream = service.connect(deadline).unwrap();
        Self(MediaClient::start(stream, &MediaClient::options(), 16).unwrap())
    }

    pub(crate) fn command(&mut self, words: &[u32], payload: &[u8], room: usize) -> (u32, Vec<u8>) {
        let mut bytes = words.as_bytes().to_vec();
        bytes.extend_from_slice(payload);
        let answer = self.0.exchange(&bytes, 8 + room as u32).unwrap();
        let status = u32::from_le_bytes(answer[..4].try_into().unwrap());
        (status, answer[8..].to_vec())
    }

    pub(crate) fn open(&mut self) -> Result<u32, u32> {
        match self.command(&[1, 0], &[], 8) {
            (0, answer) => Ok(u32::from_le_bytes(answer[..4].try_into().unwrap())),
            (status, _) => Err(status),
        }
    }

    pub(crate) fn close(&mut self, session: u32) {
        let bytes = [2, 0, session, 0];
        assert_eq!(self.0.exchange(bytes.as_bytes(), 0).unwrap(), b"");
    }

    /// An ioctl that changes its payload.
    pub(crate) fn ioctl<T: IntoBytes + FromBytes + Immutable>(
        &mut self,
        session: u32,
        number: u32,
        value: &mut T,
    ) -> u32 {
        let (status, answer) = self.command(
            &[3, 0, session, number],
            value.as_bytes(),
            size_of_val(value),
        );
        if status == 0 {
            *value = T::read_from_bytes(&answer).unwrap();
        }
        status
    }

    pub(crate) fn word(&mut self, session: u32, number: u32, word: u32) -> u32 {
        self.command(&[3, 0, session, number], word.as_bytes(), 0).0
    }

    /// The next event: its code, its session, and the rest.
    pub(crate) fn event(&mut self) -> (u32, u32, Vec<u8>) {
        let bytes = self.0.event().unwrap();
        let word = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap());
        (word(0), word(4), bytes[8..].to_vec())
    }
}
