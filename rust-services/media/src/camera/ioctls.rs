// SPDX-License-Identifier: Apache-2.0

//! A camera's answers.

use rustix::io::Errno;
use zerocopy::FromZeros;

use super::Camera;
use super::modes::{Interval, Mode, PixelFormat, Size};
use crate::buffers;
use crate::function::Context;
use crate::outbox::Session;
use crate::payload::{Answer, Input, change};
use crate::queue::Wants;
use crate::v4l2::input::{
    CaptureParm, DISCRETE, FrameInterval, FrameSize, Input as CameraInput, TIME_PER_FRAME,
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

fn nth<T: Copy>(list: &[T], index: u32) -> Result<T, Errno> {
    let index = usize::try_from(index).map_err(|_| Errno::INVAL)?;
    list.get(index).copied().ok_or(Errno::INVAL)
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
                let format = nth(&self.modes.formats, description.index)?;
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
                let Size { width, height } = nth(&self.modes.sizes, size.index)?;
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
                if !self.modes.sizes.contains(&size) {
                    return Err(Errno::INVAL);
                }
                let rate = nth(&self.modes.rates, interval.index)?;
                interval.type_ = DISCRETE;
                interval.interval = [Fraction::default(); 3];
                interval.interval[0] = Interval::per_second(rate).fraction();
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
                let interval = self.modes.nearest_rate(parm.interval);
                if self.queue.streams() && interval != self.mode.interval {
                    return Err(Errno::BUSY);
                }
                self.mode.interval = interval;
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
    parm.interval = mode.interval.fraction();
    parm
}
