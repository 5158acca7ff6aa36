// SPDX-License-Identifier: Apache-2.0

//! Cameras: virtio-media devices that give pictures.

use super::{Outcome, v4l2};
use crate::options::Options;
use crate::system::{ProgramError, System};

const PICTURES: usize = 10;

/// Whether every camera gives pictures of the size that it says.
pub(super) fn gives_pictures(system: &System, _: &Options) -> Outcome {
    let cameras = match v4l2::nodes(system, "media", "virtio_media") {
        Ok(cameras) => cameras,
        Err(outcome) => return outcome,
    };
    let mut saw = Vec::new();
    for camera in &cameras {
        match pictures(camera) {
            Ok((size, taken)) if size > 0 && taken == size.saturating_mul(PICTURES) => {
                saw.push(format!("{}: {PICTURES} of {size} bytes", camera.name));
            }
            Ok((size, taken)) => {
                return Outcome::failed(format!(
                    "{}: {PICTURES} pictures of {size} bytes were asked for, and {taken} bytes came",
                    camera.name
                ));
            }
            Err(error) => return error.into(),
        }
    }
    Outcome::passed(saw.join(", "))
}

/// The size of a picture, and how many bytes came.
fn pictures(camera: &v4l2::Node) -> Result<(usize, usize), ProgramError> {
    let format = camera.control(&["--get-fmt-video"])?;
    let count = format!("--stream-count={PICTURES}");
    let stream = camera.control(&["--stream-mmap=4", &count, "--stream-to=-"])?;
    Ok((
        size_of_picture(&String::from_utf8_lossy(&format)),
        stream.len(),
    ))
}

/// What `v4l2-ctl --get-fmt-video` says of it; 0 where it says nothing.
fn size_of_picture(format: &str) -> usize {
    let line = format.lines().find(|line| line.contains("Size Image"));
    let size = line.and_then(|line| line.rsplit(':').next());
    size.and_then(|size| size.trim().parse().ok())
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_size_of_a_picture_is_read_from_what_the_program_says() {
        let said = "Format Video Capture:\n\tWidth/Height      : 640/480\n\tSize Image        : 460800\n\tColorspace : Default\n";
        assert_eq!(size_of_picture(said), 460_800);
        assert_eq!(size_of_picture("VIDIOC_G_FMT: failed\n"), 0);
    }
}
