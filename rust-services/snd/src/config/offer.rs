// SPDX-License-Identifier: Apache-2.0

//! What an input offers that hears one WAV file: what the file has. A guest that asks for anything
//! else would record silence, and only the host's log would say why.

use std::fs::File;
use std::path::Path;

use super::{SndConfig, StreamConfig};
use crate::backend::file::read_head;
use crate::backend::wav::{Contents, Layout};
use crate::format::{Format, Rate};
use crate::wire::Direction;

impl SndConfig {
    /// Narrows what each input offers to what its only file has. One that does not offer it at all
    /// stays as it is: [`look_at_host`](Self::look_at_host) refuses it.
    pub fn offer_what_files_have(&mut self) {
        for stream in &mut self.streams {
            stream.offer_what_its_file_has();
        }
    }
}

impl StreamConfig {
    fn offer_what_its_file_has(&mut self) {
        if self.direction == Direction::Output {
            return;
        }
        let sources = self.source_list();
        let mut files = sources.iter().filter_map(|source| source.input.as_deref());
        let (Some(file), None) = (files.next(), files.next()) else {
            return;
        };
        let Some(contents) = contents(file) else {
            return;
        };
        let is_there = |format: &&Format| Layout::of(**format).is_some_and(|it| contents.has(it));
        let formats: Vec<Format> = self.formats.iter().filter(is_there).copied().collect();
        let channels = u8::try_from(contents.channels).unwrap_or(0);
        let offered = !formats.is_empty()
            && self.rates.contains(&contents.hertz)
            && (self.channels_min..=self.channels_max).contains(&channels);
        if !offered {
            return;
        }
        self.formats = formats;
        (self.channels_min, self.channels_max) = (channels, channels);
        // Alone, a rate that Linux does not know would cost the guest its card.
        if Rate::from_hertz(contents.hertz).is_some_and(Rate::known_before_1_4) {
            self.rates = vec![contents.hertz];
        }
    }
}

/// What a WAV file has; nothing for any other, or none. Why, says the look at the host.
fn contents(path: &Path) -> Option<Contents> {
    let found = std::fs::metadata(path).ok()?;
    // A FIFO would wait for its other end.
    if !found.is_file() {
        return None;
    }
    let head = read_head(&mut File::open(path).ok()?).ok()?;
    let contents = Contents::parse(&head, found.len()).ok()?;
    (contents.data_bytes > 0).then_some(contents)
}
