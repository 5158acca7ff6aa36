// SPDX-License-Identifier: Apache-2.0

//! A camera of the host, through any GStreamer pipeline: `v4l2src`, `libcamerasrc`, `pipewiresrc`.
//!
//! Pipelines are built, started and stopped by a thread of their own, because each of these may
//! take its time. Of pictures that nobody took in time only the newest stays. Pictures are let go there,
//! too: a camera of the kernel is then given their memory again, by calls that a queue thread may not make.

mod rates;

use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use gst::prelude::*;
use gstreamer as gst;
use gstreamer_app::{AppSink, AppSinkCallbacks};
use virtio_device::Waker;

use super::modes::{Mode, Size};
use super::source::{Source, SourceError, Taken};
use crate::controls::{Controls, Spec};
use crate::rate::Rates;

/// The name of the element where pictures come out.
const END: &str = "agl-virtio-end";
/// How long a pipeline may take to come up.
const PATIENCE: Duration = Duration::from_secs(5);

/// A picture of a pipeline.
type Shown = gst::MappedBuffer<gst::buffer::Readable>;

/// What a pipeline has last said.
#[derive(Default)]
struct Mailbox {
    /// Which stream it is of: what an earlier one still says is not heard.
    stream: u64,
    pictures: u64,
    newest: Option<Shown>,
    failed: Option<String>,
    waker: Option<Waker>,
}

type Shared = Arc<Mutex<Mailbox>>;

fn lock(mailbox: &Mutex<Mailbox>) -> MutexGuard<'_, Mailbox> {
    mailbox.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Says something of a stream, unless that has ended.
fn say(mailbox: &Shared, stream: u64, what: impl FnOnce(&mut Mailbox)) {
    let mut mailbox = lock(mailbox);
    if mailbox.stream == stream {
        what(&mut mailbox);
        if let Some(waker) = &mailbox.waker {
            waker.wake();
        }
    }
}

enum Order {
    /// What the camera says that it can give is to be sent there.
    Ask(Sender<Option<gst::Caps>>),
    Start(u64, Mode),
    Stop,
    /// Nobody looks at this one any more.
    LetGo(Shown),
}

/// A pipeline as a camera.
pub struct PipelineSource {
    orders: Sender<Order>,
    mailbox: Shared,
    size: usize,
    current: Option<Shown>,
    /// What the camera has said that it can give, once it was asked.
    said: Option<Option<gst::Caps>>,
}

impl PipelineSource {
    /// A camera from a pipeline's beginning, such as `v4l2src device=/dev/video0`. `prepare` runs
    /// first on the thread that it is built on.
    ///
    /// # Errors
    /// When GStreamer cannot be used, does not know an element, or no thread can be started.
    pub fn new(
        description: &str,
        prepare: impl FnOnce() + Send + 'static,
    ) -> Result<Self, SourceError> {
        gst::init().map_err(|error| SourceError(format!("GStreamer: {error}")))?;
        parse(&whole(description, ""))?;
        let (orders, queue) = channel();
        let mailbox = Shared::default();
        let (letters, description) = (Arc::clone(&mailbox), description.to_owned());
        std::thread::Builder::new()
            .name("camera".to_owned())
            .spawn(move || {
                prepare();
                serve(&description, &queue, &letters);
            })
            .map_err(|error| SourceError(format!("no thread: {error}")))?;
        Ok(Self {
            orders,
            mailbox,
            size: 0,
            current: None,
            said: None,
        })
    }

    fn order(&self, order: Order) {
        if self.orders.send(order).is_err() {
            log::error!("the camera's thread has ended");
        }
    }

    /// Asks the camera what it can give, on its own thread.
    fn ask(&self) -> Option<gst::Caps> {
        let (sender, answer) = channel();
        self.order(Order::Ask(sender));
        let said = answer.recv_timeout(PATIENCE).ok().flatten();
        match &said {
            Some(said) => log::debug!("the camera can give {said}"),
            None => log::info!("the camera does not say at which rates it gives pictures"),
        }
        said
    }

    /// Whatever comes next is of another stream than what there was.
    fn forget(&mut self) -> u64 {
        let (stream, newest) = {
            let mut mailbox = lock(&self.mailbox);
            mailbox.stream = mailbox.stream.wrapping_add(1);
            (mailbox.pictures, mailbox.failed) = (0, None);
            (mailbox.stream, mailbox.newest.take())
        };
        for picture in newest.into_iter().chain(self.current.take()) {
            self.order(Order::LetGo(picture));
        }
        stream
    }
}

impl Drop for PipelineSource {
    fn drop(&mut self) {
        self.forget();
    }
}

/// The pipeline as GStreamer reads it.
fn whole(description: &str, caps: &str) -> String {
    let convert = "videoconvert ! videoscale ! videorate";
    format!("{description} ! {convert} {caps} ! appsink name={END}")
}

fn parse(text: &str) -> Result<gst::Pipeline, SourceError> {
    let parsed = gst::parse::launch_full(text, None, gst::ParseFlags::FATAL_ERRORS);
    let element = parsed.map_err(|error| SourceError(format!("{text}: {error}")))?;
    element
        .downcast()
        .map_err(|_| SourceError(format!("{text}: is no pipeline")))
}

/// A pipeline that is stopped before it is let go.
struct Running(gst::Pipeline);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.set_state(gst::State::Null);
    }
}

/// The next order; nothing when none will come. Of those that wait, what counts is the last one: a guest
/// may start and stop much faster than a pipeline comes up.
fn next(orders: &Receiver<Order>) -> Option<Order> {
    let first = orders.recv().ok()?;
    Some(orders.try_iter().fold(first, |so_far, order| match order {
        // That of before is let go here and now.
        Order::LetGo(_) => so_far,
        order => order,
    }))
}

fn serve(description: &str, orders: &Receiver<Order>, mailbox: &Shared) {
    let mut running: Option<Running> = None;
    while let Some(order) = next(orders) {
        match order {
            Order::LetGo(picture) => drop(picture),
            Order::Ask(sender) => {
                // Nobody may wait any more.
                let _ = sender.send(said(description));
            }
            Order::Stop => drop(running.take()),
            Order::Start(stream, mode) => {
                drop(running.take());
                match start(description, stream, mode, mailbox) {
                    Ok(pipeline) => running = Some(pipeline),
                    Err(SourceError(reason)) => {
                        say(mailbox, stream, |mailbox| mailbox.failed = Some(reason));
                    }
                }
            }
        }
    }
}

/// What the camera says that it can give.
fn said(description: &str) -> Option<gst::Caps> {
    let pipeline = Running(parse(&whole(description, "")).ok()?);
    rates::said(&pipeline.0)
}

fn start(
    description: &str,
    stream: u64,
    mode: Mode,
    mailbox: &Shared,
) -> Result<Running, SourceError> {
    let caps = format!(
        "! video/x-raw,format={},width={},height={},framerate={}/{},pixel-aspect-ratio=1/1",
        mode.format.gstreamer_name(),
        mode.width,
        mode.height,
        mode.rate.pictures(),
        mode.rate.seconds()
    );
    let running = Running(parse(&whole(description, &caps))?);
    let pipeline = &running.0;
    let end = pipeline.by_name(END).and_then(|end| end.downcast().ok());
    let end: AppSink = end.ok_or_else(|| SourceError("no end".to_owned()))?;
    let letters = Arc::clone(mailbox);
    end.set_max_buffers(1);
    // A camera has few buffers, and this would keep one.
    end.set_property("enable-last-sample", false);
    end.set_drop(true);
    end.set_callbacks(
        AppSinkCallbacks::builder()
            .new_sample(move |end| {
                let sample = end.pull_sample().map_err(|_| gst::FlowError::Eos)?;
                let buffer = sample.buffer_owned().ok_or(gst::FlowError::Error)?;
                let picture = buffer
                    .into_mapped_buffer_readable()
                    .map_err(|_| gst::FlowError::Error)?;
                say(&letters, stream, |mailbox| {
                    mailbox.pictures = mailbox.pictures.wrapping_add(1);
                    mailbox.newest = Some(picture);
                });
                Ok(gst::FlowSuccess::Ok)
            })
            .build(),
    );
    let letters = Arc::clone(mailbox);
    if let Some(bus) = pipeline.bus() {
        bus.set_sync_handler(move |_, message| {
            let reason = match message.view() {
                gst::MessageView::Error(error) => Some(error.error().message().to_owned()),
                gst::MessageView::Eos(_) => Some("its end has come".to_owned()),
                _ => None,
            };
            if let Some(reason) = reason {
                say(&letters, stream, |mailbox| mailbox.failed = Some(reason));
            }
            gst::BusSyncReply::Drop
        });
    }
    let failed = |reason: &str| SourceError(format!("{description}: {reason}"));
    let mut change = pipeline.set_state(gst::State::Paused);
    if change == Ok(gst::StateChangeSuccess::Async) {
        change = pipeline.state(gst::ClockTime::try_from(PATIENCE).ok()).0;
    }
    // A camera's pictures come when they come; those of a file are held back to the pace of time.
    match change {
        Ok(success) => end.set_sync(success != gst::StateChangeSuccess::NoPreroll),
        Err(_) => return Err(failed("does not start")),
    }
    if pipeline.set_state(gst::State::Playing).is_err() {
        return Err(failed("does not run"));
    }
    Ok(running)
}

impl Source for PipelineSource {
    fn controls(&self) -> &'static [Spec] {
        // The host's camera is the host's: what one guest sets would be seen by all.
        &[]
    }

    fn rates(&mut self, size: Size) -> Option<Rates> {
        if self.said.is_none() {
            self.said = Some(self.ask());
        }
        rates::of_size(self.said.as_ref()?.as_ref()?, size)
    }

    fn attach(&mut self, waker: Waker) {
        lock(&self.mailbox).waker = Some(waker);
    }

    fn start(&mut self, mode: Mode, _now: Duration) {
        self.size = mode.layout().size;
        let stream = self.forget();
        self.order(Order::Start(stream, mode));
    }

    fn stop(&mut self) {
        self.forget();
        self.order(Order::Stop);
    }

    fn take(&mut self, _now: Duration, _controls: &Controls) -> Taken {
        let mut mailbox = lock(&self.mailbox);
        if let Some(reason) = mailbox.failed.take() {
            return Taken::Failed(SourceError(reason));
        }
        let number = mailbox.pictures;
        let Some(newest) = mailbox.newest.take() else {
            return Taken::Nothing;
        };
        drop(mailbox);
        if let Some(last) = self.current.replace(newest) {
            self.order(Order::LetGo(last));
        }
        Taken::Picture(number)
    }

    fn run_at(&self, offset: usize) -> &[u8] {
        let bytes = self.current.as_ref().map(|picture| picture.as_slice());
        let bytes = bytes.and_then(|bytes| bytes.get(offset..self.size));
        bytes.unwrap_or_default()
    }

    fn due(&self, _now: Duration) -> Option<Duration> {
        None
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;
    use crate::camera::modes::PixelFormat;
    use crate::rate::Rate;

    fn mode() -> Mode {
        Mode {
            format: PixelFormat::Nv12,
            width: 128,
            height: 64,
            rate: Rate::USUAL,
        }
    }

    fn wait(source: &mut PipelineSource) -> Taken {
        let end = Instant::now() + Duration::from_secs(60);
        loop {
            match source.take(Duration::ZERO, &Controls::new(&[])) {
                Taken::Nothing if Instant::now() < end => {
                    std::thread::sleep(Duration::from_millis(5));
                }
                taken => return taken,
            }
        }
    }

    #[test]
    fn a_pipeline_gives_pictures_again_and_again() {
        let mut source = PipelineSource::new("videotestsrc pattern=white", || {}).unwrap();
        for _ in 0..3 {
            source.start(mode(), Duration::ZERO);
            assert!(matches!(wait(&mut source), Taken::Picture(_)));
            assert_eq!(source.run_at(0).len(), 128 * 64 * 3 / 2);
            assert_eq!(source.run_at(0)[0], 235);
            source.stop();
            assert_eq!(source.run_at(0), b"");
        }
    }

    #[test]
    fn of_orders_that_wait_the_last_one_counts() {
        let (sender, orders) = channel();
        let picture = || {
            gst::init().unwrap();
            let buffer = gst::Buffer::with_size(16).unwrap();
            Order::LetGo(buffer.into_mapped_buffer_readable().unwrap())
        };
        let send = |order| sender.send(order).unwrap();
        for stream in 1..1000 {
            send(picture());
            send(Order::Stop);
            send(Order::Start(stream, mode()));
        }
        send(picture());
        assert!(matches!(next(&orders), Some(Order::Start(999, _))));
        assert!(orders.try_recv().is_err(), "nothing is left to be done");
        send(Order::Start(1000, mode()));
        send(Order::Stop);
        assert!(matches!(next(&orders), Some(Order::Stop)));
        send(picture());
        assert!(matches!(next(&orders), Some(Order::LetGo(_))));
        drop(sender);
        assert!(next(&orders).is_none());
    }

    #[test]
    fn a_camera_is_asked_for_its_rates_and_then_gives_pictures() {
        let pipeline = "videotestsrc ! video/x-raw,width=128,framerate={30000/1001,15/2}";
        let mut source = PipelineSource::new(pipeline, || {}).unwrap();
        let size = Size {
            width: 128,
            height: 64,
        };
        let rates = ["30000/1001", "15/2"].map(|rate| rate.parse().unwrap());
        assert_eq!(source.rates(size), Some(Rates::List(rates.to_vec())));
        let rate = rates[0];
        source.start(Mode { rate, ..mode() }, Duration::ZERO);
        assert!(matches!(wait(&mut source), Taken::Picture(_)));
        let mut open = PipelineSource::new("videotestsrc", || {}).unwrap();
        assert_eq!(open.rates(size), None);
    }

    #[test]
    fn the_end_of_a_pipeline_is_told() {
        let mut source = PipelineSource::new("videotestsrc num-buffers=1", || {}).unwrap();
        source.start(mode(), Duration::ZERO);
        let end = Instant::now() + Duration::from_secs(60);
        while !matches!(wait(&mut source), Taken::Failed(_)) {
            assert!(Instant::now() < end);
        }
    }

    #[test]
    fn an_element_that_is_not_there_is_named() {
        let error = PipelineSource::new("nosuchcamerasrc", || {}).err().unwrap();
        assert!(error.0.contains("nosuchcamerasrc"), "{error}");
    }
}
