// SPDX-License-Identifier: Apache-2.0

//! Video codecs: virtio-video devices. What the encoder makes of V4L2's test picture, the decoder takes.

use std::fs;
use std::path::{Path, PathBuf};
use std::process;

use super::{Outcome, v4l2};
use crate::options::Options;
use crate::system::{ProgramError, System};

const DRIVER: &str = "virtio_video";
const PICTURES: usize = 10;
const WIDTH: usize = 320;
const HEIGHT: usize = 240;
/// NV12: a byte of brightness for each pixel, and two of colour for each four.
const PICTURE: usize = WIDTH * HEIGHT / 2 * 3;

/// Whether the codecs keep every picture.
pub(super) fn keep_pictures(system: &System, _: &Options) -> Outcome {
    let nodes = match v4l2::nodes(system, "video", DRIVER) {
        Ok(nodes) => nodes,
        Err(outcome) => return outcome,
    };
    // as our driver names them
    let named = |what: &str| nodes.iter().find(|node| node.name.ends_with(what));
    let outcome = match (named("encoder"), named("decoder")) {
        (Some(encoder), Some(decoder)) => round_trip(encoder, decoder),
        (Some(codec), None) | (None, Some(codec)) => {
            return Outcome::skipped(format!(
                "{} is alone: an encoder and a decoder check each other",
                codec.name
            ));
        }
        (None, None) => return Outcome::failed("neither an encoder nor a decoder"),
    };
    match outcome {
        Ok(bytes) if bytes == PICTURE.saturating_mul(PICTURES) => Outcome::passed(format!(
            "{PICTURES} pictures of {WIDTH}x{HEIGHT} to H.264 and back"
        )),
        Ok(bytes) => Outcome::failed(format!(
            "{PICTURES} pictures of {PICTURE} bytes went to H.264 and back, and {bytes} bytes came"
        )),
        Err(error) => error.into(),
    }
}

/// A stream on its way between the two programs, gone when it is no longer wanted.
struct Stream(PathBuf);

impl Drop for Stream {
    fn drop(&mut self) {
        // It is not there when the encoder made nothing.
        let _ = fs::remove_file(&self.0);
    }
}

/// How many bytes the decoder gives.
fn round_trip(encoder: &v4l2::Node, decoder: &v4l2::Node) -> Result<usize, ProgramError> {
    let name = format!("agl-virtio-selftest-{}.h264", process::id());
    let stream = Stream(std::env::temp_dir().join(name));
    let option =
        |direction: &str, path: &Path| format!("--stream-{direction}-hdr={}", path.display());
    encoder.control(&[
        &format!("--set-fmt-video-out=width={WIDTH},height={HEIGHT},pixelformat=NV12"),
        "--set-fmt-video=pixelformat=H264",
        "--stream-mmap",
        "--stream-out-mmap",
        &format!("--stream-count={PICTURES}"),
        &option("to", &stream.0),
    ])?;
    let pictures = decoder.control(&[
        "--set-fmt-video-out=pixelformat=H264",
        "--set-fmt-video=pixelformat=NV12",
        "--stream-mmap",
        "--stream-out-mmap",
        &option("from", &stream.0),
        "--stream-to=-",
    ])?;
    Ok(pictures.len())
}
