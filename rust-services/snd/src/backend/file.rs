// SPDX-License-Identifier: Apache-2.0

//! Files: the built-in back end. What a guest plays becomes WAV files, and what it records comes from
//! one, both at the pace of the clock.
//!
//! Each time a guest prepares a stream and plays something, a new file is begun; the path's pattern
//! has a place for its number. The header is right at any moment, to within a second. A service that
//! took over from one that died goes on in the same file.

use std::fs::{File, OpenOptions};
use std::io::Read;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use agl_virtio_service::limited;
use log::Level;

use super::wav::{Contents, HEADER_BYTES, Layout, MOST_DATA, header};
use super::{Backend, BackendError, Input, Opening, Output, Pacing, StreamIdentity};
use crate::format::{Format, Params};

mod obstacle;
mod pattern;
mod room;
mod source;
pub(crate) use obstacle::{Obstacle, folder_obstacle, look_at_input, target_obstacle};
pub use pattern::directory;
pub(crate) use pattern::{filled, pattern_fault};
use pattern::{newest_number, numbered};
use room::Room;
pub use source::SourceConfig;

/// After how many seconds of sound a header is brought up to date.
const HEADER_EVERY_MS: u32 = 1000;

/// The `file` back end's options.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct FileConfig {
    /// Where an output stream's files go: `{guest}`, `{device}` and `{stream}` are names, `{n}` is
    /// the number of the file. Without `{n}`, each new file replaces the last.
    pub path: String,
    /// What an input stream hears, unless it has `sources`; nothing is silence.
    pub input: Option<PathBuf>,
    /// Whether the input begins again at its end, as it does when nothing is said; else silence
    /// follows.
    pub repeat: Option<bool>,
}

impl Default for FileConfig {
    fn default() -> Self {
        Self {
            path: "agl-virtio-snd/{stream}-{n}.wav".to_owned(),
            input: None,
            repeat: None,
        }
    }
}

/// The back end.
pub struct FileBackend {
    /// Options.
    pub config: FileConfig,
    /// What an input stream can choose from.
    pub sources: Vec<SourceConfig>,
}

impl Backend for FileBackend {
    fn name(&self) -> &'static str {
        "file"
    }

    fn formats(&self) -> u64 {
        Format::ALL
            .into_iter()
            .fold(0, |bits, format| bits | format.bit())
    }

    fn pacing(&self) -> Pacing {
        Pacing::Clock
    }

    fn output(&self, stream: &StreamIdentity) -> Box<dyn Output> {
        Box::new(FileOutput {
            pattern: filled(&self.config.path, stream),
            opening: Opening::Prepared,
            params: None,
            writer: None,
            room: Room::default(),
        })
    }

    fn input(&self, _stream: &StreamIdentity) -> Box<dyn Input> {
        Box::new(source::FileInput::new(
            self.sources.clone(),
            self.config.repeat.unwrap_or(true),
        ))
    }
}

struct FileOutput {
    pattern: String,
    opening: Opening,
    params: Option<Params>,
    /// Made when the first frame comes: a guest prepares streams that it never plays.
    writer: Option<Writer>,
    room: Room,
}

impl Output for FileOutput {
    fn open(&mut self, params: &Params, opening: Opening) -> Result<(), BackendError> {
        self.room.check(Path::new(&self.pattern))?;
        self.params = Some(*params);
        // After a full disk too, the same file goes on.
        self.opening = opening;
        Ok(())
    }

    fn write(&mut self, bytes: &[u8]) -> Result<usize, BackendError> {
        let Some(params) = self.params else {
            return Ok(bytes.len());
        };
        if self.writer.as_ref().is_some_and(Writer::is_full) {
            self.opening = Opening::Prepared;
            self.finish()?;
        }
        // Now and then, not for each piece.
        let due = |writer: &Writer| writer.is_due(bytes.len());
        if self.writer.as_ref().is_none_or(due) {
            self.room.check(Path::new(&self.pattern))?;
        }
        if self.writer.is_none() {
            self.writer = Some(Writer::create(&self.pattern, &params, self.opening)?);
        }
        if let Some(writer) = &mut self.writer {
            writer.write(bytes)?;
        }
        Ok(bytes.len())
    }

    fn stop(&mut self) -> Result<(), BackendError> {
        self.writer.as_mut().map_or(Ok(()), Writer::update_header)
    }

    fn close(&mut self) {
        if let Err(error) = self.finish() {
            limited!(Level::Warn, "the end of a file is missing: {error}");
        }
        self.params = None;
    }
}

impl FileOutput {
    fn finish(&mut self) -> Result<(), BackendError> {
        self.writer
            .take()
            .map_or(Ok(()), |mut writer| writer.update_header())
    }
}

/// A file that is being written.
struct Writer {
    path: PathBuf,
    file: File,
    params: Params,
    layout: Option<Layout>,
    /// Bytes of samples in it.
    data: u64,
    /// How many the header knows of.
    announced: u64,
    scratch: Vec<u8>,
}

impl Writer {
    fn create(pattern: &str, params: &Params, opening: Opening) -> Result<Self, BackendError> {
        let newest = newest_number(pattern);
        if opening != Opening::Prepared {
            if let Some(writer) = newest.and_then(|n| Self::reopen(&numbered(pattern, n), params)) {
                return Ok(writer);
            }
        }
        // What somebody else has there may have come since the service started.
        let layout = Layout::of(params.format);
        if let Some(obstacle) = target_obstacle(pattern, layout.is_some()) {
            return Err(BackendError::Content {
                path: pattern.to_owned(),
                reason: obstacle.message,
            });
        }
        let path = numbered(pattern, newest.map_or(1, |n| n.saturating_add(1)));
        let failed = |source| file_error(&path, source);
        if let Some(parent) = path
            .parent()
            .filter(|parent| !parent.as_os_str().is_empty())
        {
            std::fs::create_dir_all(parent).map_err(|source| file_error(parent, source))?;
        }
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(true)
            .open(&path)
            .map_err(failed)?;
        let mut writer = Self {
            path,
            file,
            params: *params,
            layout,
            data: 0,
            announced: u64::MAX,
            scratch: Vec::new(),
        };
        writer.update_header()?;
        limited!(Level::Info, "plays into {}", writer.path.display());
        Ok(writer)
    }

    /// Goes on at the end of a file that a former process began, if its samples are ours.
    fn reopen(path: &Path, params: &Params) -> Option<Self> {
        let file = OpenOptions::new().read(true).write(true).open(path).ok()?;
        let len = file.metadata().ok()?.len();
        let layout = Layout::of(params.format);
        let start = match layout {
            Some(layout) => {
                let mut head = [0; HEADER_BYTES];
                file.read_exact_at(&mut head, 0).ok()?;
                Contents::parse(&head, len)
                    .ok()
                    .filter(|found| found.fits(layout, params))?;
                HEADER_BYTES as u64
            }
            None => 0,
        };
        // What was written last may be half a frame.
        let frame = params.frame_bytes() as u64;
        let data = len.checked_sub(start)?;
        let data = data.saturating_sub(data.checked_rem(frame)?);
        log::info!("plays on into {} after {data} bytes", path.display());
        Some(Self {
            path: path.to_owned(),
            file,
            params: *params,
            layout,
            data,
            announced: 0,
            scratch: Vec::new(),
        })
    }

    fn is_full(&self) -> bool {
        self.data > MOST_DATA.saturating_sub(1 << 20)
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), BackendError> {
        let at = self.data_at().saturating_add(self.data);
        let written = match self.layout.filter(|layout| !layout.is_plain()) {
            Some(layout) => {
                self.scratch.clear();
                self.scratch.extend_from_slice(bytes);
                layout.to_file(&mut self.scratch);
                self.file.write_all_at(&self.scratch, at)
            }
            None => self.file.write_all_at(bytes, at),
        };
        written.map_err(|source| file_error(&self.path, source))?;
        self.data = self.data.saturating_add(bytes.len() as u64);
        if self.is_due(0) {
            self.update_header()?;
        }
        Ok(())
    }

    /// Whether the header is far behind, with so many bytes `more`.
    fn is_due(&self, more: usize) -> bool {
        let behind = self.data.saturating_sub(self.announced);
        let behind = usize::try_from(behind).unwrap_or(0).saturating_add(more);
        let behind = self.params.frames(behind);
        behind >= self.params.frames_in(HEADER_EVERY_MS)
    }

    fn data_at(&self) -> u64 {
        if self.layout.is_some() {
            HEADER_BYTES as u64
        } else {
            0
        }
    }

    fn update_header(&mut self) -> Result<(), BackendError> {
        if let Some(layout) = self.layout.filter(|_| self.announced != self.data) {
            let head = header(layout, &self.params, self.data);
            self.file
                .write_all_at(&head, 0)
                .map_err(|source| file_error(&self.path, source))?;
        }
        self.announced = self.data;
        Ok(())
    }
}

fn file_error(path: &Path, source: std::io::Error) -> BackendError {
    BackendError::File {
        path: path.display().to_string(),
        source,
    }
}

/// Reads the beginning of a file, as much as its chunks before the samples may take.
pub(crate) fn read_head(file: &mut File) -> std::io::Result<Vec<u8>> {
    let mut head = Vec::new();
    file.take(64 * 1024).read_to_end(&mut head)?;
    Ok(head)
}

#[cfg(test)]
mod tests;
