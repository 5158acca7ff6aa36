// SPDX-License-Identifier: Apache-2.0

//! A camera's answers.

use rustix::io::Errno;
use zerocopy::FromZeros;

use super::Camera;
use super::modes::{Mode, PixelFormat, Size};
use crate::buffers;
use crate::function::Context;
use crate::outbox::Session;
use crate::payload::{Answer, Input, change};
use crate::queue::Wants;
use crate::rate::{Rate, Rates};
use crate::v4l2::input::{
    CONTINUOUS, CaptureParm, DISCRETE, FrameInterval, FrameSize, Input as CameraInput,
    TIME_PER_FRAME,
};
use crate::v4l2::{BufType, EventSubscription, Format, FormatDescription, Fraction, Ioctl};

/// Buffers that a camera needs to give every picture.
const LEAST_BUFFERS: u32 = 2;

fn capture(code: u32) -> Result<(), Errno> {
    match BufType::parse(code)? {
        BufType::Capture => Ok(()),
        BufType::CaptureMplane | BufType::OutputMplane => Err(Errno::INVAL),
    }
}

fn nth<T>(list: &[T], index: u32) -> Result<&T, Errno> {
    let index = usize::try_from(index).map_err(|_| Errno::INVAL)?;
    list.get(index).ok_or(Errno::INVAL)
}

/// One of a list, or all of a range: how it is told, and the times from one picture to the next.
fn nth_interval(rates: &Rates, index: u32) -> Result<(u32, [Fraction; 3]), Errno> {
    let none = Fraction::default();
    match rates {
        Rates::List(list) => Ok((DISCRETE, [nth(list, index)?.interval(), none, none])),
        Rates::Range(..) if index > 0 => Err(Errno::INVAL),
        // The shortest time is that of the greatest rate.
        Rates::Range(least, most) => {
            let step = Rate::LEAST.interval();
            Ok((CONTINUOUS, [most.interval(), least.interval(), step]))
        }
    }
}

impl Camera {
    pub(super) fn run(
        &mut self,
        session: Session,
        ioctl: Ioctl,
        input: Input<'_>,
        context: &mut Context<'_>,
    ) -> Answer {
        match buffers::queue_of(ioctl, input) {
            Some(Ok(BufType::Capture)) => {
                return self.buffers(session, ioctl, input, context).into();
            }
            Some(_) => return Errno::INVAL.into(),
            None => {}
        }
        if matches!(ioctl, Ioctl::SubscribeEvent | Ioctl::UnsubscribeEvent) {
            return self.wish(session, ioctl, input, context).into();
        }
        let told = self.controls.run(ioctl, input, |controls, id| {
            controls.tell(id, session, context.outbox);
        });
        told.unwrap_or_else(|| self.format(ioctl, input).into())
    }

    fn format(&mut self, ioctl: Ioctl, mut input: Input<'_>) -> Result<Answer, Errno> {
        match ioctl {
            Ioctl::EnumFmt => change(input, |description: &mut FormatDescription| {
                capture(description.type_)?;
                let format = *nth(&self.modes.formats, description.index)?;
                let (index, type_) = (description.index, description.type_);
                *description = FormatDescription::new_zeroed();
                (description.index, description.type_) = (index, type_);
                description.pixelformat = format.fourcc().0;
                Ok(())
            }),
            Ioctl::GFmt => change(input, |format: &mut Format| {
                capture(format.type_)?;
                *format = Format::single(&self.mode.pix());
                Ok(())
            }),
            Ioctl::TryFmt => change(input, |format: &mut Format| {
                capture(format.type_)?;
                *format = Format::single(&self.modes.nearest(&format.pix(), self.mode).pix());
                Ok(())
            }),
            Ioctl::SFmt => change(input, |format: &mut Format| {
                capture(format.type_)?;
                if self.queue.is_busy() {
                    return Err(Errno::BUSY);
                }
                self.mode = self.modes.nearest(&format.pix(), self.mode);
                *format = Format::single(&self.mode.pix());
                Ok(())
            }),
            Ioctl::EnumFrameSizes => change(input, |size: &mut FrameSize| {
                self.known(size.pixel_format)?;
                let Size { width, height } = nth(&self.modes.sizes, size.index)?.size;
                size.type_ = DISCRETE;
                size.size = [width, height, 0, 0, 0, 0];
                size.reserved = [0; 2];
                Ok(())
            }),
            Ioctl::EnumFrameIntervals => change(input, |interval: &mut FrameInterval| {
                self.known(interval.pixel_format)?;
                let size = Size {
                    width: interval.width,
                    height: interval.height,
                };
                let rates = self.modes.rates(size).ok_or(Errno::INVAL)?;
                (interval.type_, interval.interval) = nth_interval(rates, interval.index)?;
                interval.reserved = [0; 2];
                Ok(())
            }),
            Ioctl::GParm => change(input, |parm: &mut CaptureParm| {
                capture(parm.type_)?;
                *parm = told_parm(self.mode);
                Ok(())
            }),
            Ioctl::SParm => change(input, |parm: &mut CaptureParm| {
                capture(parm.type_)?;
                let mode = self.modes.at_rate(self.mode, parm.interval);
                if self.queue.streams() && mode != self.mode {
                    return Err(Errno::BUSY);
                }
                self.mode = mode;
                *parm = told_parm(self.mode);
                Ok(())
            }),
            Ioctl::EnumInput => change(input, |camera: &mut CameraInput| {
                if camera.index != 0 {
                    return Err(Errno::INVAL);
                }
                *camera = CameraInput::camera(&self.name);
                Ok(())
            }),
            Ioctl::GInput => Ok(Answer::with(&0_u32)),
            Ioctl::SInput => match input.take::<u32>()? {
                0 => Ok(Answer::with(&0_u32)),
                _ => Err(Errno::INVAL),
            },
            _ => Err(Errno::NOTTY),
        }
    }

    fn known(&self, fourcc: u32) -> Result<PixelFormat, Errno> {
        PixelFormat::from_fourcc(fourcc)
            .filter(|format| self.modes.formats.contains(format))
            .ok_or(Errno::INVAL)
    }

    fn buffers(
        &mut self,
        session: Session,
        ioctl: Ioctl,
        input: Input<'_>,
        context: &mut Context<'_>,
    ) -> Result<Answer, Errno> {
        match ioctl {
            Ioctl::StreamOn => {
                self.start(session, context.now)?;
                Ok(Answer::done())
            }
            Ioctl::StreamOff => {
                self.stop(session, context.outbox)?;
                Ok(Answer::done())
            }
            _ => {
                let wants = Wants {
                    sizes: &[self.mode.pix().sizeimage],
                    least: LEAST_BUFFERS,
                    // They bring nothing, and one queue cannot note much.
                    most: 0,
                    runs: usize::MAX,
                };
                buffers::run(&mut self.queue, session, ioctl, input, wants, context)
            }
        }
    }

    fn wish(
        &mut self,
        session: Session,
        ioctl: Ioctl,
        mut input: Input<'_>,
        context: &mut Context<'_>,
    ) -> Result<Answer, Errno> {
        let wish: EventSubscription = input.take()?;
        if ioctl == Ioctl::UnsubscribeEvent {
            context.outbox.unsubscribe(session, &wish);
        } else {
            self.controls.subscribe(session, &wish, context.outbox)?;
        }
        Ok(Answer::done())
    }
}

fn told_parm(mode: Mode) -> CaptureParm {
    let mut parm = CaptureParm::new_zeroed();
    parm.type_ = BufType::Capture.code();
    parm.capability = TIME_PER_FRAME;
    parm.interval = mode.rate.interval();
    parm
}
