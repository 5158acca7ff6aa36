// SPDX-License-Identifier: Apache-2.0

//! The far end of a stream: a back end on its own thread, or nothing.

use crate::backend::Opening;
use crate::backend::pipe::{Report, ServerState};
use crate::backend::runner::{InputRunner, OutputRunner};
use crate::format::Params;
use crate::panel::StreamPanel;

/// Where a stream's frames go to or come from.
pub enum End {
    /// Nowhere.
    Null,
    /// A back end that plays.
    Output(OutputRunner),
    /// A back end that records.
    Input(InputRunner),
}

impl End {
    pub(super) fn open(&mut self, params: &Params, opening: Opening) {
        match self {
            Self::Null => {}
            Self::Output(runner) => runner.open(params, opening),
            Self::Input(runner) => runner.open(params, opening),
        }
    }

    pub(super) fn start(&self) {
        match self {
            Self::Null => {}
            Self::Output(runner) => runner.start(),
            Self::Input(runner) => runner.start(),
        }
    }

    pub(super) fn stop(&self) {
        match self {
            Self::Null => {}
            Self::Output(runner) => runner.stop(),
            Self::Input(runner) => runner.stop(),
        }
    }

    pub(super) fn close(&mut self) {
        match self {
            Self::Null => {}
            Self::Output(runner) => runner.close(),
            Self::Input(runner) => runner.close(),
        }
    }

    pub(super) fn push(&mut self, bytes: &[u8], params: &Params) {
        match self {
            Self::Output(runner) => runner.push(bytes, params),
            // Read from the guest, and forgotten.
            Self::Null | Self::Input(_) => {}
        }
    }

    pub(super) fn pull(&mut self, bytes: &mut [u8], params: &Params) -> usize {
        match self {
            Self::Input(runner) => runner.pull(bytes, params),
            Self::Null | Self::Output(_) => 0,
        }
    }

    /// Whether `bytes` are not there yet, though they will be: a file can wait.
    pub(super) fn waits_for_source(&self, bytes: usize) -> bool {
        match self {
            Self::Input(runner) => {
                !runner.is_live()
                    && runner.available() < bytes
                    && matches!(
                        runner.report().state(),
                        ServerState::Opening | ServerState::Live | ServerState::Closed
                    )
            }
            Self::Null | Self::Output(_) => false,
        }
    }

    /// After a gap, a live source goes on with the last `keep` frames.
    pub(super) fn skip_old(&mut self, keep: u64, params: &Params) {
        if let Self::Input(runner) = self {
            if runner.is_live() {
                runner.skip(params.bytes(keep), params);
            }
        }
    }

    /// Bytes that were recorded and not taken.
    pub(super) fn available(&self) -> usize {
        match self {
            Self::Input(runner) => runner.available(),
            Self::Null | Self::Output(_) => 0,
        }
    }

    pub(super) fn select(&mut self, source: u32, params: Option<&Params>) {
        if let Self::Input(runner) = self {
            runner.select(source, params);
        }
    }

    pub(super) fn delay(&self, now: u64, params: &Params) -> u64 {
        match self {
            Self::Null => 0,
            Self::Output(runner) => runner.delay(now, params),
            Self::Input(runner) => runner.delay(now, params),
        }
    }

    /// Frames of the delay that the back end keeps beyond its target.
    pub(super) fn reserve(&self) -> u64 {
        self.report().map_or(0, Report::reserve)
    }

    fn report(&self) -> Option<&Report> {
        match self {
            Self::Null => None,
            Self::Output(runner) => Some(runner.report()),
            Self::Input(runner) => Some(runner.report()),
        }
    }

    pub(super) fn server(&self) -> ServerState {
        self.report().map_or(ServerState::Live, Report::state)
    }

    /// Shows how the back end does. Returns whether its state has changed.
    pub(super) fn show(&self, panel: &StreamPanel) -> bool {
        let Some(report) = self.report() else {
            return false;
        };
        panel.set_discarded(report.discarded());
        let state = report.state() as u8;
        let changed = panel.server() != state;
        panel.set_server(state);
        changed
    }
}
