// SPDX-License-Identifier: Apache-2.0

//! What decoders and encoders have in common: the life of a pipeline.

mod pipeline;
mod running;
mod shared;
mod thread;

pub(crate) use pipeline::{Plan, SINK, SOURCE};
pub(crate) use running::{Raw, Running};
pub use shared::Counters;
pub(crate) use shared::Shared;

use std::sync::Arc;
use std::time::Duration;

use crate::error::CodecError;
use crate::layout::Size;

/// What a session needs of the process it runs in.
#[derive(Clone)]
pub struct Host {
    /// Called from any thread when [`Session::poll`] may have something, or there is room again. It
    /// must not wait.
    pub notify: Arc<dyn Fn() + Send + Sync>,
    /// Runs first in the session's thread, from which GStreamer's threads come: the sandbox.
    pub prepare: Arc<dyn Fn() + Send + Sync>,
    /// After how long without any progress a session is given up.
    pub patience: Duration,
}

/// What has happened in a session.
#[derive(Debug)]
pub enum Event<Output> {
    /// What comes from now on has this visible size: known from a header before the first output, and
    /// again between the last output of one size and the first one of another.
    Size(Size),
    /// The next output.
    Output(Output),
    /// All that was pushed before [`Session::drain`] has come out. The session goes on as if it were
    /// new.
    Drained,
    /// What was pushed before [`Session::flush`] is forgotten.
    Flushed,
    /// The session has failed, and nothing follows.
    Failed(CodecError),
}

/// A codec at work. No method waits.
pub trait Session: Send {
    /// What goes in.
    type Input;
    /// What comes out.
    type Output;

    /// Whether [`Session::push`] is welcome: while it is not, input is better kept where it is.
    fn room(&self) -> bool;

    /// Hands over the next input. Its timestamp comes out with what is made of it, unchanged.
    fn push(&mut self, input: Self::Input, timestamp: u64);

    /// Has all that was pushed come out, then [`Event::Drained`]. What is pushed meanwhile waits.
    fn drain(&mut self);

    /// Forgets all that was pushed, then [`Event::Flushed`]; a drain that is under way is forgotten
    /// too. Nothing else comes out in between.
    fn flush(&mut self);

    /// What has happened next, or nothing more now. An output that is not taken stays, and holds up
    /// the codec behind it.
    fn poll(&mut self) -> Option<Event<Self::Output>>;

    /// After how long [`Session::poll`] is to be called at the latest, to notice that the codec hangs;
    /// nothing while it has nothing to do.
    fn look_after(&self) -> Option<Duration>;

    /// What has gone through so far.
    fn counters(&self) -> Counters;
}
