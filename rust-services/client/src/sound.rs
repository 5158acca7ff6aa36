// SPDX-License-Identifier: Apache-2.0
//! What a sound device has below its own path; the destination is the device's service.

/// A stream, at `…/DEVICE/streams/N`.
#[zbus::proxy(
    interface = "org.automotivelinux.Virtio1.Sound.Stream",
    gen_blocking = false
)]
pub trait Stream {
    /// The name of the stream.
    #[zbus(property(emits_changed_signal = "const"))]
    fn name(&self) -> zbus::Result<String>;

    /// `output` or `input`.
    #[zbus(property(emits_changed_signal = "const"))]
    fn direction(&self) -> zbus::Result<String>;

    /// Place on the fader, 0.0 (silence) to 1.0 (unity); 0.01 is half a decibel.
    #[zbus(property)]
    fn volume(&self) -> zbus::Result<f64>;

    /// Moves the fader.
    #[zbus(property)]
    fn set_volume(&self, volume: f64) -> zbus::Result<()>;

    /// Whether it is muted.
    #[zbus(property)]
    fn mute(&self) -> zbus::Result<bool>;

    /// Mutes it.
    #[zbus(property)]
    fn set_mute(&self, mute: bool) -> zbus::Result<()>;

    /// What an input has chosen; empty where there is no choice.
    #[zbus(property)]
    fn source(&self) -> zbus::Result<String>;

    /// Chooses what an input records.
    #[zbus(property)]
    fn set_source(&self, source: &str) -> zbus::Result<()>;

    /// `Multimedia`, `Navigation`, `Communication` or `Emergency`.
    #[zbus(property)]
    fn role(&self) -> zbus::Result<String>;

    /// Gives it another role, and the role's priority.
    #[zbus(property)]
    fn set_role(&self, role: &str) -> zbus::Result<()>;

    /// Over which others it is heard.
    #[zbus(property(emits_changed_signal = "false"))]
    fn priority(&self) -> zbus::Result<u32>;

    /// How far it steps back for others, in decibels.
    #[zbus(property(emits_changed_signal = "false"))]
    fn duck_level(&self) -> zbus::Result<f64>;

    /// How far it steps back now for other guests, in decibels.
    #[zbus(property(emits_changed_signal = "false"))]
    fn duck(&self) -> zbus::Result<f64>;

    /// Lets it step back for other guests, −60 to 0 decibels.
    #[zbus(property)]
    fn set_duck(&self, level: f64) -> zbus::Result<()>;

    /// `idle`, `configured`, `prepared`, `running`, `stopped` or `released`; `paused` while it is
    /// started and waits for a stream of higher priority.
    #[zbus(property)]
    fn state(&self) -> zbus::Result<String>;

    /// Under-runs or over-runs.
    #[zbus(property)]
    fn xruns(&self) -> zbus::Result<u64>;

    /// What the host had still to play, in microseconds.
    #[zbus(property(emits_changed_signal = "false"))]
    fn latency_usec(&self) -> zbus::Result<u32>;
}

/// A jack, at `…/DEVICE/jacks/N`.
#[zbus::proxy(
    interface = "org.automotivelinux.Virtio1.Sound.Jack",
    gen_blocking = false
)]
pub trait Jack {
    /// The name of the jack.
    #[zbus(property(emits_changed_signal = "const"))]
    fn name(&self) -> zbus::Result<String>;

    /// Whether something is plugged in.
    #[zbus(property)]
    fn connected(&self) -> zbus::Result<bool>;

    /// Plugs it in, or pulls it.
    #[zbus(property)]
    fn set_connected(&self, connected: bool) -> zbus::Result<()>;
}
