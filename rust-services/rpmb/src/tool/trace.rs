// SPDX-License-Identifier: Apache-2.0

//! Frames on their way, written down.

use std::fs::File;
use std::io::{self, Write};

use zerocopy::IntoBytes;

use crate::mmc::Card;
use crate::wire::Frame;

/// A card whose frames are written down.
pub(super) struct Traced {
    card: Box<dyn Card>,
    file: File,
}

impl Traced {
    pub(super) fn new(card: Box<dyn Card>, file: File) -> Self {
        Self { card, file }
    }

    fn note(&mut self, way: char, frame: &Frame) -> io::Result<()> {
        let hex: String = frame
            .as_bytes()
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        writeln!(self.file, "{way}{hex}")
    }
}

impl Card for Traced {
    fn exchange(
        &mut self,
        request: &[Frame],
        result_read: Option<&Frame>,
        answer: &mut [Frame],
    ) -> io::Result<()> {
        for frame in request.iter().chain(result_read) {
            self.note('>', frame)?;
        }
        self.card.exchange(request, result_read, answer)?;
        for frame in answer.iter() {
            self.note('<', frame)?;
        }
        Ok(())
    }

    fn lock(&mut self, on: bool) -> io::Result<()> {
        self.card.lock(on)
    }
}
