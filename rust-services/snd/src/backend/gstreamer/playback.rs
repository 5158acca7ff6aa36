// SPDX-License-Identifier: Apache-2.0

//! The playing side: frames with times written on them.

use std::time::{Duration, Instant};

use gst::prelude::*;
use gstreamer as gst;
use gstreamer_app::AppSrc;

use super::super::channels::{Maps, Reorder};
use super::super::{BackendError, Opening, Output};
use super::caps::Layout;
use super::description;
use super::pipeline::{Pipeline, Slot};
use crate::format::Params;
use crate::wire::Direction;

/// Frames that wait in front of the pipeline, at most, in milliseconds.
const MOST_MS: u32 = 200;
/// How much is handed over at once, at most, in milliseconds.
const PIECE_MS: u32 = 50;
/// How long one call waits for room.
const ROOM: Duration = Duration::from_millis(10);
/// A pipeline that takes nothing for so long is taken for lost.
const PATIENCE: Duration = Duration::from_secs(2);
/// The rest of a stream is waited for no longer than this.
const LONGEST_REST: Duration = Duration::from_millis(1000);
/// How often a pipeline is asked for its latency, which walks through all its elements.
const ASK: Duration = Duration::from_secs(1);

pub(super) struct Playback {
    description: String,
    latency_ms: u32,
    maps: Maps,
    slot: Slot,
    open: Option<Open>,
}

struct Open {
    source: AppSrc,
    params: Params,
    reorder: Option<Reorder>,
    /// Where on the pipeline's time the frames are.
    place: Place,
    /// Nanoseconds that a frame may come late.
    grace: u64,
    latency: u64,
    asked: Option<Instant>,
    taken: Instant,
    // Dropped last: it gives the elements back.
    pipeline: Pipeline,
}

/// Times of frames: counted from an anchor, so that no rounding adds up.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
struct Place {
    /// The pipeline's time at the anchor, in nanoseconds; `None` before the first frame and after a
    /// stop.
    anchor: Option<u64>,
    frames: u64,
    hertz: u64,
}

impl Place {
    /// When the next frame is due.
    fn next(&self) -> u64 {
        let passed = u128::from(self.frames)
            .saturating_mul(1_000_000_000)
            .checked_div(u128::from(self.hertz))
            .unwrap_or(0);
        self.anchor
            .unwrap_or(0)
            .saturating_add(u64::try_from(passed).unwrap_or(u64::MAX))
    }

    /// Makes sure that the next frame is not later than `grace` at the time `now`. True if a gap was
    /// needed for that.
    fn keep_up(&mut self, now: u64, grace: u64) -> bool {
        let behind = self.anchor.is_none() || now > self.next().saturating_add(grace);
        if behind {
            self.anchor = Some(now);
            self.frames = 0;
        }
        behind
    }
}

impl Playback {
    pub(super) fn new(description: String, latency_ms: u32, maps: Maps) -> Self {
        Self {
            description,
            latency_ms,
            maps,
            slot: Slot::default(),
            open: None,
        }
    }
}

impl Open {
    /// Hands over the beginning of `bytes`.
    fn push(&mut self, bytes: &[u8]) -> Result<usize, BackendError> {
        let most = self.params.bytes(self.params.frames_in(PIECE_MS));
        let piece = bytes.get(..bytes.len().min(most)).unwrap_or_default();
        let mut samples = piece.to_vec();
        if let Some(reorder) = &self.reorder {
            let width = self.params.format.container_bits().div_ceil(8);
            reorder.apply(&mut samples, usize::try_from(width).unwrap_or(1));
        }
        let now = self.pipeline.now().unwrap_or(0);
        let gap = self.place.keep_up(now, self.grace);
        let from = self.place.next();
        self.place.frames = self
            .place
            .frames
            .saturating_add(self.params.frames(piece.len()));
        let lasting = self.place.next().saturating_sub(from);

        let mut buffer = gst::Buffer::from_mut_slice(samples);
        if let Some(buffer) = buffer.get_mut() {
            buffer.set_pts(gst::ClockTime::from_nseconds(from));
            buffer.set_duration(gst::ClockTime::from_nseconds(lasting));
            if gap {
                buffer.set_flags(gst::BufferFlags::DISCONT);
            }
        }
        match self.source.push_buffer(buffer) {
            Ok(_) => {
                self.taken = Instant::now();
                Ok(piece.len())
            }
            // The bus knows why.
            Err(flow) => {
                self.pipeline.look()?;
                Err(self.pipeline.lost(format!("takes nothing more: {flow}")))
            }
        }
    }

    fn is_full(&self) -> bool {
        let most = self.params.bytes(self.params.frames_in(MOST_MS)) as u64;
        self.source.current_level_bytes() >= most
    }
}

impl Output for Playback {
    fn open(&mut self, params: &Params, _opening: Opening) -> Result<(), BackendError> {
        self.close();
        let taken = self.slot.take(&self.description)?;
        let positions = self.maps.of(params.channels);
        let (pipeline, end) =
            description::build(&self.description, Direction::Output, params.format)?;
        let pipeline = Pipeline::new(&self.description, pipeline, taken);
        let (Ok(source), Some(layout)) =
            (end.downcast::<AppSrc>(), Layout::new(params, &positions))
        else {
            return Err(pipeline.lost(format!("cannot take format {:?}", params.format)));
        };
        let latency = gst::ClockTime::from_mseconds(u64::from(self.latency_ms));
        source.set_caps(Some(&layout.caps));
        source.set_format(gst::Format::Time);
        source.set_is_live(true);
        source.set_block(false);
        source.set_latency(latency, None);
        // Bounded by `write`; what is in there twice over would be a fault of this code.
        let most = params.bytes(params.frames_in(MOST_MS)) as u64;
        source.set_max_bytes(most.saturating_mul(2));
        pipeline.set(gst::State::Playing)?;
        self.open = Some(Open {
            source,
            params: *params,
            reorder: layout.towards(&positions),
            place: Place {
                hertz: u64::from(params.rate.hertz()),
                ..Place::default()
            },
            grace: latency.nseconds(),
            latency: 0,
            asked: None,
            taken: Instant::now(),
            pipeline,
        });
        Ok(())
    }

    fn write(&mut self, bytes: &[u8]) -> Result<usize, BackendError> {
        let Some(open) = self.open.as_mut() else {
            return Ok(0);
        };
        open.pipeline.look()?;
        if !open.is_full() {
            return open.push(bytes);
        }
        if open.taken.elapsed() > PATIENCE {
            return Err(open.pipeline.lost("has taken nothing for two seconds"));
        }
        std::thread::sleep(ROOM);
        Ok(0)
    }

    fn delay(&mut self) -> u64 {
        let Some(open) = self.open.as_mut() else {
            return 0;
        };
        if open.asked.is_none_or(|asked| asked.elapsed() > ASK) {
            open.latency = open.pipeline.latency();
            open.asked = Some(Instant::now());
        }
        let now = open.pipeline.now().unwrap_or(0);
        let heard = open.place.next().saturating_add(open.latency);
        let frames = u128::from(heard.saturating_sub(now))
            .saturating_mul(u128::from(open.params.rate.hertz()))
            / 1_000_000_000;
        u64::try_from(frames).unwrap_or(u64::MAX)
    }

    fn stop(&mut self) -> Result<(), BackendError> {
        // What was handed over is played; what comes after the pause has a new place in time.
        if let Some(open) = self.open.as_mut() {
            open.place.anchor = None;
        }
        Ok(())
    }

    fn close(&mut self) {
        let Some(open) = self.open.take() else {
            return;
        };
        // Formats with a header or a trailer are finished by the end of the stream.
        if open.pipeline.look().is_ok() && open.source.end_of_stream().is_ok() {
            open.pipeline.wait_for_end(LONGEST_REST);
        }
    }
}

impl Drop for Playback {
    fn drop(&mut self) {
        self.close();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_follow_each_other_without_a_gap_until_they_come_too_late() {
        let mut place = Place {
            hertz: 44_100,
            ..Place::default()
        };
        assert!(place.keep_up(1000, 20), "the first frame begins somewhere");
        assert_eq!(place.next(), 1000);
        place.frames += 44_100 * 86_400;
        assert_eq!(place.next(), 1000 + 86_400 * 1_000_000_000);
        let due = place.next();
        assert!(!place.keep_up(due + 20, 20), "late, but in its place");
        assert_eq!(place.next(), due);
        assert!(place.keep_up(due + 21, 20), "too late");
        assert_eq!(place.next(), due + 21);
    }
}
