// SPDX-License-Identifier: Apache-2.0

//! Where a camera's pictures come from.

use std::time::Duration;

use virtio_device::Waker;

use super::controls;
use super::modes::{Mode, Size};
use super::picture::{Look, Picture};
use crate::controls::{Controls, Spec};
use crate::rate::Rates;

/// Why there are no pictures.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("the camera's source: {0}")]
pub struct SourceError(pub String);

/// What a source has.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Taken {
    /// No picture that was not taken already.
    Nothing,
    /// A new picture, with its number: those before it that nobody took are lost.
    Picture(u64),
    /// It will not have any more.
    Failed(SourceError),
}

/// Gives pictures between [`Source::start`] and [`Source::stop`]. No method waits but where it
/// says so.
pub trait Source: Send {
    /// The controls that its pictures follow.
    fn controls(&self) -> &'static [Spec];

    /// At which rates the source itself gives pictures of a size, where it says so. Before the first
    /// [`Source::start`]; this may wait.
    fn rates(&mut self, _size: Size) -> Option<Rates> {
        None
    }

    /// Wakes the queue thread when there is a picture, unless [`Source::due`] says when.
    fn attach(&mut self, waker: Waker);

    /// Begins.
    fn start(&mut self, mode: Mode, now: Duration);

    /// Ends.
    fn stop(&mut self);

    /// The newest picture; [`Source::run_at`] reads it until the next call.
    fn take(&mut self, now: Duration, controls: &Controls) -> Taken;

    /// Bytes of the picture from `offset`, as many as lie together; none beyond its end.
    fn run_at(&self, offset: usize) -> &[u8];

    /// When there will be a picture, if that is known.
    fn due(&self, now: Duration) -> Option<Duration>;
}

/// The built-in test picture: numbered by the host's clock, so that all guests see the same one.
#[derive(Debug, Default)]
pub struct TestPicture {
    running: Option<(Mode, Picture)>,
    shown: u64,
}

impl Source for TestPicture {
    fn controls(&self) -> &'static [Spec] {
        &controls::TEST_PICTURE
    }

    fn attach(&mut self, _waker: Waker) {}

    fn start(&mut self, mode: Mode, now: Duration) {
        self.running = Some((mode, Picture::new(mode)));
        (self.shown, _) = mode.rate.tick(now);
    }

    fn stop(&mut self) {
        self.running = None;
    }

    fn take(&mut self, now: Duration, controls: &Controls) -> Taken {
        let Some((mode, picture)) = &mut self.running else {
            return Taken::Nothing;
        };
        let (number, _) = mode.rate.tick(now);
        if number == self.shown {
            return Taken::Nothing;
        }
        self.shown = number;
        picture.draw(
            number,
            Look {
                brightness: controls.value(controls::BRIGHTNESS).saturating_sub(128),
                mirrored: controls.value(controls::HFLIP) != 0,
                upside_down: controls.value(controls::VFLIP) != 0,
                grey: controls.value(controls::TEST_PATTERN) != 0,
            },
        );
        Taken::Picture(number)
    }

    fn run_at(&self, offset: usize) -> &[u8] {
        let picture = self.running.as_ref().map(|(_, picture)| picture);
        picture.map_or(&[], |picture| picture.run_at(offset))
    }

    fn due(&self, now: Duration) -> Option<Duration> {
        let (mode, _) = self.running.as_ref()?;
        let (number, next) = mode.rate.tick(now);
        Some(if number == self.shown { next } else { now })
    }
}
