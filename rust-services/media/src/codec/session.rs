// SPDX-License-Identifier: Apache-2.0

//! One open file of a decoder or an encoder: what its program asks, and what it is answered.

use agl_virtio_codec::Size;
use rustix::io::Errno;
use zerocopy::FromZeros;

use super::controls;
use super::formats::{Chosen, MOST_CODED, RAW, fourcc};
use super::stream::{LEAST_BUFFERS, Stream, Workshop};
use super::{Offer, Room, Way, selection};
use crate::buffers;
use crate::controls::Controls;
use crate::function::Context;
use crate::outbox::Session;
use crate::payload::{Answer, Input, MAX_PLANE_BYTES, change};
use crate::queue::Wants;
use crate::rate::Rate;
use crate::v4l2::event::{EOS, SOURCE_CHANGE};
use crate::v4l2::input::{
    CONTINUOUS, CaptureParm, DecoderCmd, EncoderCmd, FrameInterval, FrameSize, STEPWISE, Selection,
    TIME_PER_FRAME,
};
use crate::v4l2::{BufType, EventSubscription, Format, FormatDescription, Ioctl};

/// `V4L2_FMT_FLAG_DYN_RESOLUTION`: a stream may change its size.
const DYNAMIC_SIZE: u32 = 8;
/// `V4L2_DEC_CMD_START` and `V4L2_ENC_CMD_START`.
const START: u32 = 0;
/// `V4L2_DEC_CMD_STOP` and `V4L2_ENC_CMD_STOP`.
const STOP: u32 = 1;

/// An open file.
pub(super) struct CodecSession {
    pub(super) stream: Stream,
    chosen: Chosen,
    controls: Controls,
}

/// Which queue has what is coded.
fn is_coded(way: Way, type_: BufType) -> bool {
    type_.is_output() == (way == Way::Decode)
}

/// A queue of such a device.
fn queue_type(code: u32) -> Result<BufType, Errno> {
    match BufType::parse(code)? {
        BufType::Capture => Err(Errno::INVAL),
        type_ => Ok(type_),
    }
}

impl CodecSession {
    pub(super) fn new(session: Session, offer: &Offer) -> Self {
        Self {
            stream: Stream::new(session, offer.way),
            chosen: Chosen::new(offer),
            controls: Controls::new(&controls::specs(offer)),
        }
    }

    /// Whether it counts among the streams that a guest may have.
    pub(super) fn is_at_work(&self) -> bool {
        self.stream.coder.is_some() || self.stream.output.streams()
    }

    pub(super) fn turn(
        &mut self,
        shop: &mut Workshop<'_>,
        context: &mut Context<'_>,
    ) -> Result<(), String> {
        self.stream
            .turn(&mut self.chosen, &self.controls, shop, context)
    }

    pub(super) fn run(
        &mut self,
        offer: &Offer,
        room: Room,
        ioctl: Ioctl,
        input: Input<'_>,
        context: &mut Context<'_>,
    ) -> Answer {
        match buffers::queue_of(ioctl, input) {
            Some(Ok(BufType::Capture)) => return Errno::INVAL.into(),
            Some(Ok(type_)) => {
                return self.buffers(type_, room, ioctl, input, context).into();
            }
            Some(Err(error)) => return error.into(),
            None => {}
        }
        let session = self.stream.session;
        let mut touched = Vec::new();
        let told = self.controls.run(ioctl, input, |controls, id| {
            controls.tell(id, session, context.outbox);
            touched.push(id);
        });
        if let Some(answer) = told {
            self.heed(&touched);
            return answer;
        }
        self.ask(offer, ioctl, input, context).into()
    }

    /// What a new value of a control means to a stream that is at work.
    fn heed(&mut self, touched: &[u32]) {
        if touched.contains(&controls::FORCE_KEY_FRAME) {
            self.stream.force_key = true;
        }
        if touched.iter().any(|id| *id != controls::FORCE_KEY_FRAME) {
            let settings = controls::settings(&self.controls, &self.chosen);
            if let Some(coder) = &mut self.stream.coder {
                coder.adjust(settings);
            }
        }
    }

    fn buffers(
        &mut self,
        type_: BufType,
        room: Room,
        ioctl: Ioctl,
        input: Input<'_>,
        context: &mut Context<'_>,
    ) -> Result<Answer, Errno> {
        match ioctl {
            Ioctl::StreamOn => {
                if type_.is_output() && !room.stream {
                    return Err(Errno::BUSY);
                }
                self.stream.start(type_)?;
                return Ok(Answer::done());
            }
            Ioctl::StreamOff => {
                self.stream.stop(type_, context.outbox)?;
                return Ok(Answer::done());
            }
            _ => {}
        }
        let (mut sizes, most) = if is_coded(self.stream.way, type_) {
            (self.chosen.coded_sizes(), MOST_CODED)
        } else {
            (self.chosen.raw_sizes(), MAX_PLANE_BYTES)
        };
        if ioctl == Ioctl::QBuf && self.stream.held {
            // Of the former size, for the empty one that ends it: there may be no other one.
            sizes.fill(0);
        }
        let wants = Wants {
            sizes: &sizes,
            least: if type_.is_output() { 1 } else { LEAST_BUFFERS },
            most,
            runs: room.runs,
        };
        let session = self.stream.session;
        let queue = self.stream.queue(type_);
        let answer = buffers::run(queue, session, ioctl, input, wants, context)?;
        if ioctl == Ioctl::ReqBufs && type_.is_output() && self.stream.output.is_empty() {
            // Without buffers there is no stream.
            self.stream.end_coder();
        }
        Ok(answer)
    }

    fn ask(
        &mut self,
        offer: &Offer,
        ioctl: Ioctl,
        mut input: Input<'_>,
        context: &mut Context<'_>,
    ) -> Result<Answer, Errno> {
        let encodes = self.stream.way == Way::Encode;
        match ioctl {
            Ioctl::EnumFmt => change(input, |description| self.nth_format(offer, description)),
            Ioctl::GFmt => change(input, |format: &mut Format| {
                *format = self.told(queue_type(format.type_)?);
                Ok(())
            }),
            Ioctl::TryFmt => change(input, |format: &mut Format| {
                let kept = self.chosen;
                let tried = queue_type(format.type_).map(|type_| {
                    self.wish(offer, type_, format);
                    self.told(type_)
                });
                self.chosen = kept;
                *format = tried?;
                Ok(())
            }),
            Ioctl::SFmt => change(input, |format: &mut Format| self.set_format(offer, format)),
            Ioctl::EnumFrameSizes => change(input, |size: &mut FrameSize| nth_size(offer, size)),
            Ioctl::EnumFrameIntervals if encodes => {
                change(input, |interval: &mut FrameInterval| {
                    nth_interval(offer, interval)
                })
            }
            Ioctl::GParm if encodes => change(input, |parm: &mut CaptureParm| self.parm(parm)),
            Ioctl::SParm if encodes => change(input, |parm: &mut CaptureParm| {
                let wish = parm.interval;
                self.parm(parm)?;
                if self.stream.output.streams() {
                    return Err(Errno::BUSY);
                }
                self.chosen.set_interval(wish);
                // The codec was opened for the rate before.
                self.stream.renew_coder();
                self.parm(parm)
            }),
            Ioctl::GSelection => change(input, |selection: &mut Selection| {
                selection.r = selection::told(self.stream.way, &self.chosen, selection)?;
                Ok(())
            }),
            Ioctl::SSelection => change(input, |selection: &mut Selection| self.select(selection)),
            Ioctl::TryDecoderCmd if !encodes => change(input, try_decoder),
            Ioctl::DecoderCmd if !encodes => change(input, |command: &mut DecoderCmd| {
                try_decoder(command)?;
                self.course(command.cmd == STOP)
            }),
            Ioctl::TryEncoderCmd if encodes => change(input, try_encoder),
            Ioctl::EncoderCmd if encodes => change(input, |command: &mut EncoderCmd| {
                try_encoder(command)?;
                self.course(command.cmd == STOP)
            }),
            Ioctl::SubscribeEvent => {
                let wish: EventSubscription = input.take()?;
                let session = self.stream.session;
                match wish.type_ {
                    EOS if wish.id == 0 => context.outbox.subscribe(session, &wish).map(drop)?,
                    SOURCE_CHANGE if wish.id == 0 && !encodes => {
                        context.outbox.subscribe(session, &wish).map(drop)?;
                    }
                    _ => self.controls.subscribe(session, &wish, context.outbox)?,
                }
                Ok(Answer::done())
            }
            Ioctl::UnsubscribeEvent => {
                let wish: EventSubscription = input.take()?;
                context.outbox.unsubscribe(self.stream.session, &wish);
                Ok(Answer::done())
            }
            _ => Err(Errno::NOTTY),
        }
    }

    fn course(&mut self, stop: bool) -> Result<(), Errno> {
        if stop {
            self.stream.ask_drain()
        } else {
            self.stream.go_on()
        }
    }

    fn nth_format(&self, offer: &Offer, description: &mut FormatDescription) -> Result<(), Errno> {
        let type_ = queue_type(description.type_)?;
        let at = usize::try_from(description.index).unwrap_or(usize::MAX);
        let coded = is_coded(self.stream.way, type_);
        let found = if coded {
            offer.codecs.get(at).map(|codec| fourcc(*codec))
        } else {
            RAW.get(at).map(|raw| raw.fourcc)
        };
        let found = found.ok_or(Errno::INVAL)?;
        let index = description.index;
        *description = FormatDescription::new_zeroed();
        (description.index, description.type_) = (index, type_.code());
        description.pixelformat = found.0;
        if coded && self.stream.way == Way::Decode {
            description.flags = DYNAMIC_SIZE;
        }
        Ok(())
    }

    fn told(&self, type_: BufType) -> Format {
        let pix = if is_coded(self.stream.way, type_) {
            self.chosen.coded_pix()
        } else {
            self.chosen.raw_pix()
        };
        Format::multi(type_, &pix)
    }

    fn wish(&mut self, offer: &Offer, type_: BufType, format: &Format) {
        let pix = format.pix_mplane();
        if is_coded(self.stream.way, type_) {
            // While there are buffers for pictures, these stay as they are.
            let follow = self.stream.capture.is_empty();
            self.chosen.wish_coded(&pix, offer, follow);
        } else {
            self.chosen.wish_raw(&pix, offer);
        }
    }

    fn set_format(&mut self, offer: &Offer, format: &mut Format) -> Result<(), Errno> {
        let type_ = queue_type(format.type_)?;
        if self.stream.queue(type_).is_busy() {
            return Err(Errno::BUSY);
        }
        let kept = self.chosen;
        self.wish(offer, type_, format);
        let coded = is_coded(self.stream.way, type_);
        let other = if type_.is_output() {
            &self.stream.capture
        } else {
            &self.stream.output
        };
        // Another codec is another stream; so is an encoder's other picture.
        let another = if coded {
            self.chosen.codec != kept.codec
        } else {
            self.stream.way == Way::Encode && self.chosen.coded_sizes() != kept.coded_sizes()
        };
        if another && other.is_busy() {
            self.chosen = kept;
            return Err(Errno::BUSY);
        }
        if type_.is_output() || self.stream.way == Way::Encode {
            self.stream.end_coder();
        }
        *format = self.told(type_);
        Ok(())
    }

    fn parm(&self, parm: &mut CaptureParm) -> Result<(), Errno> {
        if queue_type(parm.type_)? != BufType::OutputMplane {
            return Err(Errno::INVAL);
        }
        *parm = CaptureParm::new_zeroed();
        parm.type_ = BufType::OutputMplane.code();
        parm.capability = TIME_PER_FRAME;
        parm.interval = self.chosen.rate.interval();
        Ok(())
    }

    /// A rectangle is another one from the next picture on; that of an encoder makes another stream.
    fn select(&mut self, selection: &mut Selection) -> Result<(), Errno> {
        let way = self.stream.way;
        selection::told(way, &self.chosen, selection)?;
        let mut chosen = self.chosen;
        selection::set(way, &mut chosen, selection)?;
        match way {
            // Pictures of one place would come after those of another in the same queue.
            Way::Decode if self.stream.capture.streams() && chosen != self.chosen => {
                return Err(Errno::BUSY);
            }
            Way::Decode => {}
            Way::Encode if self.stream.capture.is_busy() => return Err(Errno::BUSY),
            Way::Encode => self.stream.end_coder(),
        }
        self.chosen = chosen;
        Ok(())
    }
}

fn try_decoder(command: &mut DecoderCmd) -> Result<(), Errno> {
    if !matches!(command.cmd, START | STOP) {
        return Err(Errno::INVAL);
    }
    (command.flags, command.raw) = (0, [0; 16]);
    Ok(())
}

fn try_encoder(command: &mut EncoderCmd) -> Result<(), Errno> {
    if !matches!(command.cmd, START | STOP) {
        return Err(Errno::INVAL);
    }
    (command.flags, command.raw) = (0, [0; 8]);
    Ok(())
}

/// Whether a device has a format on either queue.
fn is_offered(offer: &Offer, format: u32) -> bool {
    let coded = offer.codecs.iter().any(|codec| fourcc(*codec).0 == format);
    coded || RAW.iter().any(|raw| raw.fourcc.0 == format)
}

fn step(offer: &Offer) -> u32 {
    // A stream has pictures of any size; an encoder is given whole samples of their colours.
    match offer.way {
        Way::Decode => 1,
        Way::Encode => 2,
    }
}

fn nth_size(offer: &Offer, size: &mut FrameSize) -> Result<(), Errno> {
    if size.index != 0 || !is_offered(offer, size.pixel_format) {
        return Err(Errno::INVAL);
    }
    let (least, most, step) = (offer.limits.least, offer.limits.most, step(offer));
    size.type_ = STEPWISE;
    size.size = [
        least.width,
        most.width,
        step,
        least.height,
        most.height,
        step,
    ];
    size.reserved = [0; 2];
    Ok(())
}

fn nth_interval(offer: &Offer, interval: &mut FrameInterval) -> Result<(), Errno> {
    let size = Size::new(interval.width, interval.height);
    let whole = size.width % 2 == 0 && size.height % 2 == 0;
    if interval.index != 0
        || !is_offered(offer, interval.pixel_format)
        || offer.limits.clamp(size) != size
        || !whole
    {
        return Err(Errno::INVAL);
    }
    interval.type_ = CONTINUOUS;
    interval.interval = [Rate::MOST, Rate::LEAST, Rate::LEAST].map(Rate::interval);
    interval.reserved = [0; 2];
    Ok(())
}
