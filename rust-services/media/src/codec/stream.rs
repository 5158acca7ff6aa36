// SPDX-License-Identifier: Apache-2.0

//! How a stream flows: what goes into its codec, what comes out, and what holds it up.
//!
//! The states are those of V4L2's stateful decoders and encoders. A stream that *drains* takes no
//! more in, gives what there is and then an empty last buffer; then it is *stopped* until its program
//! goes on. A decoder whose pictures get another size is *held* after the last one of the old size,
//! until its program has looked at the new one.

use std::collections::BTreeMap;
use std::time::Duration;

use agl_virtio_codec::Size;
use agl_virtio_codec::coder::{Codecs, Coder, MOST_INPUTS, Output};
use rustix::io::Errno;

use super::formats::{Chosen, fourcc};
use super::{Offer, Share, Way};
use crate::controls::Controls;
use crate::function::Context;
use crate::outbox::{Outbox, Session};
use crate::queue::{Filled, Queue};
use crate::rate::Rate;
use crate::statistics::{Statistics, Work};
use crate::v4l2::event::EOS;
use crate::v4l2::format::FIELD_NONE;
use crate::v4l2::{BufType, BufferFlags, Event};

/// Buffers that a queue needs: one at the codec, one at the program.
pub(super) const LEAST_BUFFERS: u32 = 2;
/// Inputs whose times are remembered: more than any codec has inside.
const MOST_ORIGINS: usize = 1024;

/// What a session works with.
pub(super) struct Workshop<'a> {
    pub(super) codecs: &'a mut dyn Codecs,
    pub(super) offer: &'a Offer,
    pub(super) statistics: &'a Statistics,
    /// What this session may have of that.
    pub(super) left: Share,
}

/// How far a drain is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Drain {
    /// There is none.
    None,
    /// So many inputs that were there before are to go in first.
    Asked(usize),
    /// The codec is at it.
    Codec,
    /// The codec is at it, and nobody wants to hear when it is done.
    Unwanted,
}

/// What is told of an output as it was told of its input.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Origin {
    pub(super) seconds: i64,
    pub(super) microseconds: i64,
    pub(super) flags: u32,
    pub(super) timecode: [u8; 16],
}

/// A session's stream.
pub(super) struct Stream {
    pub(super) session: Session,
    pub(super) way: Way,
    pub(super) output: Queue,
    pub(super) capture: Queue,
    pub(super) coder: Option<Box<dyn Coder>>,
    /// Came out, and waits for a buffer.
    pub(super) ready: Option<Box<dyn Output>>,
    pub(super) drain: Drain,
    /// Drained; its program is to go on.
    pub(super) stopped: bool,
    /// Its pictures have another size; its program is to look.
    pub(super) held: bool,
    /// An empty last buffer is to be given.
    pub(super) last_due: bool,
    /// The codec forgets what it had.
    pub(super) flushing: bool,
    pub(super) force_key: bool,
    /// By the number that goes through the codec.
    pub(super) origins: BTreeMap<u64, Origin>,
    next_origin: u64,
    output_sequence: u32,
    capture_sequence: u32,
    /// What it has, while it has a codec.
    share: Share,
    /// What the bus was told of it.
    told: Option<Work>,
}

impl Stream {
    pub(super) fn new(session: Session, way: Way) -> Self {
        let clock = BufferFlags::TIMESTAMP_COPY;
        Self {
            session,
            way,
            output: Queue::new(BufType::OutputMplane, clock),
            capture: Queue::new(BufType::CaptureMplane, clock),
            coder: None,
            ready: None,
            drain: Drain::None,
            stopped: false,
            held: false,
            last_due: false,
            flushing: false,
            force_key: false,
            origins: BTreeMap::new(),
            next_origin: 0,
            output_sequence: 0,
            capture_sequence: 0,
            share: Share::default(),
            told: None,
        }
    }

    /// What it has of what its guest may have.
    pub(super) fn share(&self) -> Share {
        self.share
    }

    /// Runs of pages that are noted of its buffers.
    pub(super) fn runs(&self) -> usize {
        self.output.runs().saturating_add(self.capture.runs())
    }

    /// Whether it may have so many pixels. They are its own only if so.
    pub(super) fn reckon(&mut self, size: Size, rate: Rate, shop: &Workshop<'_>) -> bool {
        let pixels = size.pixels().saturating_mul(rate.ceil().into());
        let may = pixels <= shop.left.pixels;
        if may {
            self.share.pixels = pixels;
        }
        may
    }

    /// Whether its codec may be given so many bytes at once. As a codec holds several inputs, and in a
    /// process has memory for them that stays, the largest one counts as often as that until the codec
    /// ends.
    pub(super) fn may_hold(&mut self, bytes: usize, shop: &Workshop<'_>) -> bool {
        let bytes = u64::try_from(bytes.saturating_mul(MOST_INPUTS)).unwrap_or(u64::MAX);
        let bytes = bytes.max(self.share.bytes);
        let may = bytes <= shop.left.bytes;
        if may {
            self.share.bytes = bytes;
        }
        may
    }

    /// Whether the program is to do something before the codec is asked again.
    pub(super) fn is_held_up(&self) -> bool {
        !self.flushing && (self.last_due || self.held || self.stopped || self.ready.is_some())
    }

    /// As [`Coder::look_after`]; nothing while the program holds it up, for the silence is not the
    /// codec's then.
    pub(super) fn look_after(&self) -> Option<Duration> {
        if self.is_held_up() {
            return None;
        }
        self.coder.as_ref()?.look_after()
    }

    /// Goes on as far as it gets.
    pub(super) fn turn(
        &mut self,
        chosen: &mut Chosen,
        controls: &Controls,
        shop: &mut Workshop<'_>,
        context: &mut Context<'_>,
    ) -> Result<(), String> {
        // What came out may make room for what goes in, and the other way round.
        while self.take_out(chosen, shop, context)?
            | self.put_in(chosen, controls, shop, context)?
        {}
        self.describe(chosen, shop);
        Ok(())
    }

    /// Tells the bus what it does, where that is news.
    fn describe(&mut self, chosen: &Chosen, shop: &Workshop<'_>) {
        let work = self.coder.as_ref().map(|coder| Work {
            what: fourcc(chosen.codec),
            width: chosen.visible.width,
            height: chosen.visible.height,
            rate: match self.way {
                Way::Decode => 0.0,
                Way::Encode => chosen.rate.as_f64(),
            },
            process: coder.process(),
        });
        if work != self.told {
            self.told = work;
            shop.statistics.works(self.session, work);
        }
    }

    /// STREAMON of either queue.
    pub(super) fn start(&mut self, type_: BufType) -> Result<(), Errno> {
        let session = self.session;
        let queue = self.queue(type_);
        if queue.streams() {
            return Ok(());
        }
        queue.start(session)?;
        if type_.is_output() {
            self.output_sequence = 0;
        } else {
            self.capture_sequence = 0;
        }
        Ok(())
    }

    pub(super) fn queue(&mut self, type_: BufType) -> &mut Queue {
        if type_.is_output() {
            &mut self.output
        } else {
            &mut self.capture
        }
    }

    /// STREAMOFF of either queue: its buffers are the driver's.
    pub(super) fn stop(&mut self, type_: BufType, outbox: &mut Outbox) -> Result<(), Errno> {
        let session = self.session;
        let queue = self.queue(type_);
        let streamed = queue.streams();
        queue.stop(session)?;
        outbox.forget_buffers(session, type_.code());
        if streamed {
            match (type_.is_output(), self.way) {
                (true, way) => self.forget_input(way, outbox),
                (false, Way::Decode) => self.forget_wait(),
                (false, Way::Encode) => self.forget_coded(),
            }
        }
        Ok(())
    }

    /// A seek: what was given is void, and what follows has nothing to do with it.
    fn forget_input(&mut self, way: Way, outbox: &mut Outbox) {
        let drained = !matches!(self.drain, Drain::None | Drain::Unwanted);
        self.flush();
        self.stopped = false;
        if !self.held {
            self.last_due = false;
        }
        if drained && way == Way::Encode {
            // Whoever waits for the end of what was encoded gets it.
            self.end(outbox);
        }
    }

    /// Whoever takes a decoder's buffers back has looked at the new size, or does not wait any more.
    fn forget_wait(&mut self) {
        if !std::mem::take(&mut self.held) {
            self.drain = match self.drain {
                Drain::None | Drain::Asked(_) => Drain::None,
                Drain::Codec | Drain::Unwanted => Drain::Unwanted,
            };
        }
        self.stopped = false;
        self.last_due = false;
    }

    /// What an encoder gives next begins a new stream.
    fn forget_coded(&mut self) {
        self.flush();
        self.stopped = false;
        self.last_due = false;
    }

    fn flush(&mut self) {
        self.ready = None;
        self.drain = Drain::None;
        if let Some(coder) = &mut self.coder {
            coder.flush();
            self.flushing = true;
        }
    }

    /// No codec any more: the next input begins another stream.
    pub(super) fn end_coder(&mut self) {
        self.coder = None;
        self.ready = None;
        self.drain = Drain::None;
        self.flushing = false;
        self.stopped = false;
        self.origins.clear();
        self.share = Share::default();
    }

    /// As [`Self::end_coder`], but what was stopped stays so until its program goes on.
    pub(super) fn renew_coder(&mut self) {
        let stopped = self.stopped;
        self.end_coder();
        self.stopped = stopped;
    }

    /// DECODER_CMD or ENCODER_CMD, STOP: all that was given is to come out, and then an end.
    pub(super) fn ask_drain(&mut self) -> Result<(), Errno> {
        match self.drain {
            _ if self.stopped || !self.output.streams() => {}
            Drain::None => self.drain = Drain::Asked(self.output.waiting()),
            Drain::Asked(_) | Drain::Codec | Drain::Unwanted => return Err(Errno::BUSY),
        }
        Ok(())
    }

    /// And START: it goes on.
    pub(super) fn go_on(&mut self) -> Result<(), Errno> {
        let drains = matches!(self.drain, Drain::Asked(_) | Drain::Codec);
        if drains && !self.held {
            return Err(Errno::BUSY);
        }
        self.stopped = false;
        self.held = false;
        self.last_due = false;
        Ok(())
    }

    /// Everything has come out.
    pub(super) fn end(&mut self, outbox: &mut Outbox) {
        self.drain = Drain::None;
        self.stopped = true;
        self.last_due = true;
        outbox.event(self.session, &Event::new(EOS, 0, &[]));
    }

    /// Remembers what an input says; the number that its outputs will have.
    pub(super) fn note(&mut self, origin: Origin) -> u64 {
        let number = self.next_origin;
        self.next_origin = number.wrapping_add(1);
        self.origins.insert(number, origin);
        if self.origins.len() > MOST_ORIGINS {
            self.origins.pop_first();
        }
        number
    }

    /// The device is done with a buffer.
    pub(super) fn give_back(
        &mut self,
        type_: BufType,
        index: u32,
        mut filled: Filled,
        outbox: &mut Outbox,
    ) {
        let count = if type_.is_output() {
            &mut self.output_sequence
        } else {
            &mut self.capture_sequence
        };
        filled.sequence = *count;
        *count = count.wrapping_add(1);
        filled.field = FIELD_NONE;
        if let Some((buffer, planes)) = self.queue(type_).give_back(index, &filled) {
            outbox.buffer(self.session, buffer, &planes);
        }
    }

    /// Pictures per second that it is reckoned to have.
    pub(super) fn rate(&self, chosen: &Chosen) -> Rate {
        match self.way {
            Way::Decode => Rate::USUAL,
            Way::Encode => chosen.rate,
        }
    }
}
