// SPDX-License-Identifier: Apache-2.0

//! A camera's answers.

use rustix::io::Errno;
use zerocopy::FromZeros;

use super::Camera;
use super::modes::{Interval, Mode, PixelFormat, Size};
use crate::function::Context;
use crate::outbox::Session;
use crate::payload::{Answer, BufferRequest, Input, change};
use crate::v4l2::buffer::CAN_SHARE_PAGES;
use crate::v4l2::event::CTRL;
use crate::v4l2::input::{
    CaptureParm, DISCRETE, FrameInterval, FrameSize, Input as CameraInput, TIME_PER_FRAME,
};
use crate::v4l2::{
    BufType, CreateBuffers, EventSubscription, Format, FormatDescription, Fraction, Ioctl,
    RequestBuffers,
};

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
        match ioctl {
            Ioctl::GExtCtrls => self.controls.get_all(input),
            Ioctl::TryExtCtrls => self.controls.try_all(input),
            Ioctl::SExtCtrls => self.controls.set_all(input, |controls, id| {
                Self::tell_control(controls, context.outbox, id, session);
            }),
            Ioctl::ReqBufs
            | Ioctl::CreateBufs
            | Ioctl::QueryBuf
            | Ioctl::PrepareBuf
            | Ioctl::QBuf
            | Ioctl::StreamOn
            | Ioctl::StreamOff => self.buffers(session, ioctl, input, context).into(),
            Ioctl::QueryCtrl
            | Ioctl::QueryExtCtrl
            | Ioctl::QueryMenu
            | Ioctl::GCtrl
            | Ioctl::SCtrl
            | Ioctl::SubscribeEvent
            | Ioctl::UnsubscribeEvent => self.control(session, ioctl, input, context).into(),
            _ => self.format(ioctl, input).into(),
        }
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
        mut input: Input<'_>,
        context: &mut Context<'_>,
    ) -> Result<Answer, Errno> {
        match ioctl {
            Ioctl::ReqBufs => change(input, |request: &mut RequestBuffers| {
                capture(request.type_)?;
                self.queue.request(session, request, LEAST_BUFFERS)
            }),
            Ioctl::CreateBufs => change(input, |create: &mut CreateBuffers| {
                capture(create.format.type_)?;
                create.capabilities = CAN_SHARE_PAGES;
                (create.flags, create.reserved) = (0, [0; 5]);
                create.max_num_buffers = crate::queue::MAX_BUFFERS;
                if create.count == 0 {
                    create.index = self.queue.len();
                    return Ok(());
                }
                if create.format.pix().sizeimage < self.mode.pix().sizeimage {
                    return Err(Errno::INVAL);
                }
                let memory = create.memory;
                (create.index, create.count) = self.queue.create(session, memory, create.count)?;
                Ok(())
            }),
            Ioctl::QueryBuf => {
                let mut request = BufferRequest::take(&mut input)?;
                capture(request.buffer.type_)?;
                self.queue.query(&mut request)?;
                request.buffer.length = self.mode.pix().sizeimage;
                Ok(request.answer())
            }
            Ioctl::PrepareBuf => {
                // Nothing of a buffer can be prepared: its pages come with QBUF.
                let mut request = BufferRequest::take(&mut input)?;
                capture(request.buffer.type_)?;
                self.queue.claim(session)?;
                self.queue.query(&mut request)?;
                Ok(request.answer())
            }
            Ioctl::QBuf => {
                let mut request = BufferRequest::take(&mut input)?;
                capture(request.buffer.type_)?;
                if context.outbox.is_full() {
                    return Err(Errno::BUSY);
                }
                let size = self.mode.pix().sizeimage;
                self.queue
                    .queue(session, &mut request, &mut input, context.memory, &[size])?;
                Ok(request.answer())
            }
            Ioctl::StreamOn => {
                capture(input.take()?)?;
                self.start(session, context.now)?;
                Ok(Answer::done())
            }
            _ => {
                capture(input.take()?)?;
                self.stop(session, context.outbox)?;
                Ok(Answer::done())
            }
        }
    }

    fn control(
        &mut self,
        session: Session,
        ioctl: Ioctl,
        mut input: Input<'_>,
        context: &mut Context<'_>,
    ) -> Result<Answer, Errno> {
        match ioctl {
            Ioctl::QueryCtrl => change(input, |query| self.controls.query(query)),
            Ioctl::QueryExtCtrl => change(input, |query| self.controls.query_ext(query)),
            Ioctl::QueryMenu => change(input, |query| self.controls.query_menu(query)),
            Ioctl::GCtrl => change(input, |control| self.controls.get(control)),
            Ioctl::SCtrl => change(input, |control| {
                if self.controls.set(control)? {
                    Self::tell_control(&self.controls, context.outbox, control.id, session);
                }
                Ok(())
            }),
            Ioctl::SubscribeEvent => {
                let wish: EventSubscription = input.take()?;
                if wish.type_ != CTRL || !self.controls.has(wish.id) {
                    return Err(Errno::INVAL);
                }
                if context.outbox.subscribe(session, &wish)? {
                    // Everything is new to who asks for the first time.
                    if let Some(event) = self.controls.event(wish.id, INITIAL) {
                        context.outbox.event(session, &event);
                    }
                }
                Ok(Answer::done())
            }
            _ => {
                let wish: EventSubscription = input.take()?;
                context.outbox.unsubscribe(session, &wish);
                Ok(Answer::done())
            }
        }
    }
}

/// Value and flags.
const INITIAL: u32 = crate::v4l2::event::CHANGED_VALUE | crate::v4l2::event::CHANGED_FLAGS;

fn told_parm(mode: Mode) -> CaptureParm {
    let mut parm = CaptureParm::new_zeroed();
    parm.type_ = BufType::Capture.code();
    parm.capability = TIME_PER_FRAME;
    parm.interval = mode.interval.fraction();
    parm
}
