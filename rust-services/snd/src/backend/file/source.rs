// SPDX-License-Identifier: Apache-2.0

//! What an input stream of the `file` back end hears: a file, a tone, or silence.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

use agl_virtio_service::limited;
use serde::Deserialize;

use super::super::wav::{Contents, Layout};
use super::super::{BackendError, Input, Opening};
use super::{file_error, read_head};
use crate::format::Params;
use crate::sample::{Codec, WithCodec, with_codec};

/// A source that a guest can select.
#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct SourceConfig {
    /// Its name in the guest's mixer.
    pub name: String,
    /// A WAV file with the samples that the guest asks for; others become silence, and the log says
    /// so. Other files are taken as plain samples.
    #[serde(default)]
    pub input: Option<PathBuf>,
    /// A sine of this many hertz at −20 dB, instead of a file.
    #[serde(default)]
    pub tone: Option<f64>,
}

pub(super) struct FileInput {
    sources: Vec<SourceConfig>,
    repeat: bool,
    selected: usize,
    params: Option<Params>,
    playing: Playing,
}

enum Playing {
    Silence,
    File(Reader),
    Tone { hertz: f64, frame: u64 },
}

struct Reader {
    path: PathBuf,
    file: File,
    layout: Option<Layout>,
    start: u64,
    len: u64,
    at: u64,
}

impl FileInput {
    pub(super) fn new(sources: Vec<SourceConfig>, repeat: bool) -> Self {
        Self {
            sources,
            repeat,
            selected: 0,
            params: None,
            playing: Playing::Silence,
        }
    }

    /// Turns to the selected source, from its beginning.
    fn begin(&mut self) {
        self.playing = Playing::Silence;
        let (Some(params), Some(source)) = (&self.params, self.sources.get(self.selected)) else {
            return;
        };
        if let Some(hertz) = source.tone {
            self.playing = Playing::Tone { hertz, frame: 0 };
        } else if let Some(path) = &source.input {
            match Reader::open(path, params) {
                Ok(reader) => self.playing = Playing::File(reader),
                // A wrong file is not a lost server: to try again would not help.
                Err(error) => limited!(
                    log::Level::Error,
                    "the source {} is silent: {error}",
                    source.name
                ),
            }
        }
    }
}

impl Input for FileInput {
    fn open(&mut self, params: &Params, _opening: Opening) -> Result<(), BackendError> {
        self.params = Some(*params);
        self.begin();
        Ok(())
    }

    fn read(&mut self, bytes: &mut [u8]) -> Result<usize, BackendError> {
        let Some(params) = self.params else {
            return Ok(0);
        };
        match &mut self.playing {
            Playing::Silence => params.fill_silence(bytes),
            Playing::File(reader) => reader.read(bytes, &params, self.repeat)?,
            Playing::Tone { hertz, frame } => {
                let tone = Tone {
                    hertz: *hertz,
                    first: *frame,
                    params: &params,
                    bytes,
                };
                if with_codec(params.format, tone).is_none() {
                    params.fill_silence(bytes);
                }
                *frame = frame.wrapping_add(params.frames(bytes.len()));
            }
        }
        Ok(bytes.len())
    }

    fn is_live(&self) -> bool {
        false
    }

    fn select(&mut self, source: u32) {
        self.selected = usize::try_from(source).unwrap_or(usize::MAX);
        self.begin();
    }

    fn close(&mut self) {
        self.params = None;
        self.playing = Playing::Silence;
    }
}

impl Reader {
    fn open(path: &PathBuf, params: &Params) -> Result<Self, BackendError> {
        let failed = |source| file_error(path, source);
        let mut file = File::open(path).map_err(failed)?;
        let size = file.metadata().map_err(failed)?.len();
        let head = read_head(&mut file).map_err(failed)?;
        let content = |reason: String| BackendError::Content {
            path: path.display().to_string(),
            reason,
        };
        let wav = head.starts_with(b"RIFF");
        let (layout, start, bytes) = match Layout::of(params.format).filter(|_| wav) {
            Some(layout) => {
                let found =
                    Contents::parse(&head, size).map_err(|reason| content(reason.to_owned()))?;
                if !found.fits(layout, params) {
                    return Err(content(format!(
                        "it has {} channels at {} Hz, the guest records {} channels at {} Hz as \
                         {:?}; let the guest record what the file has, or convert the file",
                        found.channels,
                        found.hertz,
                        params.channels,
                        params.rate.hertz(),
                        params.format
                    )));
                }
                (Some(layout), found.data_at, found.data_bytes)
            }
            None => (None, 0, size),
        };
        let frame = params.frame_bytes() as u64;
        let len = bytes.saturating_sub(bytes.checked_rem(frame).unwrap_or(0));
        if len == 0 {
            return Err(content("there is not one frame in it".to_owned()));
        }
        Ok(Self {
            path: path.clone(),
            file,
            layout,
            start,
            len,
            at: 0,
        })
    }

    fn read(
        &mut self,
        bytes: &mut [u8],
        params: &Params,
        repeat: bool,
    ) -> Result<(), BackendError> {
        let mut rest = &mut *bytes;
        while !rest.is_empty() {
            let left = self.len.saturating_sub(self.at);
            if left == 0 {
                if !repeat {
                    params.fill_silence(rest);
                    return Ok(());
                }
                self.at = 0;
                continue;
            }
            let now = usize::try_from(left).unwrap_or(usize::MAX).min(rest.len());
            let (piece, later) = std::mem::take(&mut rest).split_at_mut(now);
            self.file
                .read_exact_at(piece, self.start.saturating_add(self.at))
                .map_err(|source| file_error(&self.path, source))?;
            if let Some(layout) = self.layout {
                layout.from_file(piece);
            }
            self.at = self.at.saturating_add(now as u64);
            rest = later;
        }
        Ok(())
    }
}

/// A sine at −20 dB.
struct Tone<'a> {
    hertz: f64,
    first: u64,
    params: &'a Params,
    bytes: &'a mut [u8],
}

impl WithCodec for Tone<'_> {
    type Result = ();

    fn run<C: Codec>(self) {
        let frame = self.params.frame_bytes();
        let turn = self.hertz * std::f64::consts::TAU / f64::from(self.params.rate.hertz());
        for (number, samples) in (self.first..).zip(self.bytes.chunks_exact_mut(frame)) {
            #[expect(clippy::cast_precision_loss, reason = "exact for thousands of years")]
            let value = 0.1 * (turn * number as f64).sin();
            for sample in samples.chunks_exact_mut(C::WIDTH) {
                C::encode(value, sample);
            }
        }
    }
}
