// SPDX-License-Identifier: Apache-2.0
//! QEMU's monitor protocol, as far as a manager needs it.

use super::qemu::{chardev_arguments, chardev_id, device_id, typed};
use super::{PlannedDevice, device_properties};
use crate::foreign::sentence;
use serde_json::{Value, json};
use std::io;
use std::path::Path;
use std::time::{Duration, Instant};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::mpsc;
use tokio::task::AbortHandle;

/// A monitor that does not answer within this time has failed.
const ANSWER: Duration = Duration::from_secs(20);
/// A monitor that was just connected to is as quick, or is tried again: nothing else happens to its
/// guest meanwhile.
const GREETING: Duration = Duration::from_secs(5);
/// Longer lines are no answers. In bytes. What is read of one takes up to thirty times as much.
const LONGEST_LINE: u64 = 1 << 20;
/// So many answers wait for whoever asked.
const ANSWERS: usize = 4;
/// So many events of a monitor are heard in a second; one that tells of more is heard later.
const EVENTS: u32 = 100;
/// So much is told of what a monitor says. In characters.
const TOLD: usize = 300;

/// Why a command was of no use.
#[derive(Debug, thiserror::Error)]
pub enum QmpError {
    /// QEMU said no.
    #[error("QEMU refused {command}: {reason}")]
    Refused {
        /// The command.
        command: String,
        /// QEMU's words.
        reason: String,
    },
    /// The connection is gone, or was never there.
    #[error("QEMU's monitor is gone: {0}")]
    Gone(#[source] io::Error),
    /// No answer.
    #[error("QEMU did not answer {0} in time")]
    Silent(String),
}

/// Something that happened in the machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MachineEvent {
    /// The machine ends; the reason in QEMU's words, such as `guest-shutdown`.
    Shutdown(String),
    /// The guest's kernel panicked.
    Panicked,
    /// The machine began anew: somebody pressed reset, or the guest did.
    Reset,
    /// The processors stopped.
    Stopped,
    /// The processors run.
    Resumed,
    /// The guest has let go of a device: its name.
    DeviceGone(String),
    /// The monitor's connection ended.
    Closed,
}

/// A connection to the monitor.
#[derive(Debug)]
pub struct Qmp {
    writer: OwnedWriteHalf,
    replies: mpsc::Receiver<Value>,
    last_id: u64,
    reader: AbortHandle,
}

impl Drop for Qmp {
    /// A monitor that keeps its end open is not listened to any more.
    fn drop(&mut self) {
        self.reader.abort();
    }
}

impl Qmp {
    /// Connects. What happens in the machine is told to `events`, [`MachineEvent::Closed`] last.
    ///
    /// # Errors
    /// Nobody listens, or it is no monitor.
    pub async fn connect<F, Fut>(socket: &Path, events: F) -> Result<Self, QmpError>
    where
        F: Fn(MachineEvent) -> Fut + Send + 'static,
        Fut: Future<Output = ()> + Send + 'static,
    {
        let stream = UnixStream::connect(socket).await.map_err(QmpError::Gone)?;
        let (reader, writer) = stream.into_split();
        let (sender, replies) = mpsc::channel(ANSWERS);
        let reader = tokio::spawn(read(reader, sender, events)).abort_handle();
        let mut qmp = Self {
            writer,
            replies,
            last_id: 0,
            reader,
        };
        let greeting = qmp.execute("qmp_capabilities", json!({}));
        match tokio::time::timeout(GREETING, greeting).await {
            Ok(greeted) => greeted.map(|_| qmp),
            Err(_) => Err(QmpError::Silent("qmp_capabilities".to_owned())),
        }
    }

    /// Runs a command and gives back its answer.
    ///
    /// # Errors
    /// See [`QmpError`].
    pub async fn execute(&mut self, command: &str, arguments: Value) -> Result<Value, QmpError> {
        self.last_id = self.last_id.wrapping_add(1);
        let request = json!({ "execute": command, "arguments": arguments, "id": self.last_id });
        let line = format!("{request}\n");
        let answer = async {
            self.writer
                .write_all(line.as_bytes())
                .await
                .map_err(QmpError::Gone)?;
            loop {
                let Some(reply) = self.replies.recv().await else {
                    return Err(QmpError::Gone(io::ErrorKind::ConnectionAborted.into()));
                };
                // An answer that came too late for an earlier command is nobody's.
                if reply.get("id") == Some(&Value::from(self.last_id)) {
                    return Ok(reply);
                }
            }
        };
        let reply = tokio::time::timeout(ANSWER, answer)
            .await
            .map_err(|_| QmpError::Silent(command.to_owned()))??;
        if let Some(error) = reply.get("error") {
            let reason = error.get("desc").and_then(Value::as_str);
            return Err(QmpError::Refused {
                command: command.to_owned(),
                reason: sentence(reason.unwrap_or("no reason"), TOLD),
            });
        }
        Ok(reply.get("return").cloned().unwrap_or_default())
    }

    /// Whether the processors are stopped.
    ///
    /// # Errors
    /// See [`QmpError`].
    pub async fn is_paused(&mut self) -> Result<bool, QmpError> {
        let status = self.execute("query-status", json!({})).await?;
        Ok(status.get("running").and_then(Value::as_bool) == Some(false))
    }

    /// The threads that run the guest's processors, in their order.
    ///
    /// # Errors
    /// See [`QmpError`].
    pub async fn processor_threads(&mut self) -> Result<Vec<i32>, QmpError> {
        let answer = self.execute("query-cpus-fast", json!({})).await?;
        let mut threads: Vec<(i64, i32)> = answer
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(|cpu| {
                let index = cpu.get("cpu-index")?.as_i64()?;
                let thread = cpu.get("thread-id")?.as_i64()?;
                Some((index, i32::try_from(thread).ok()?))
            })
            .collect();
        threads.sort_unstable();
        Ok(threads.into_iter().map(|(_, thread)| thread).collect())
    }

    /// Puts a device into a port of the running machine.
    ///
    /// # Errors
    /// See [`QmpError`].
    pub async fn add_device(&mut self, device: &PlannedDevice, port: &str) -> Result<(), QmpError> {
        let mut properties = device_properties(device, port);
        let driver = json!({ "typename": properties.get("driver") });
        let listed = self.execute("device-list-properties", driver).await?;
        typed(&mut properties, &listed);
        let arguments = chardev_arguments(&device.name, &device.socket);
        self.execute("chardev-add", arguments).await?;
        match self.execute("device_add", properties.into()).await {
            Ok(_) => Ok(()),
            Err(error) => {
                self.remove_socket(&device.name).await;
                Err(error)
            }
        }
    }

    /// Asks the guest to let go of a device; [`MachineEvent::DeviceGone`] says when it has.
    ///
    /// # Errors
    /// See [`QmpError`].
    pub async fn ask_for_device(&mut self, name: &str) -> Result<(), QmpError> {
        let id = json!({ "id": device_id(name) });
        self.execute("device_del", id).await.map(|_| ())
    }

    /// Forgets the socket of a device that is gone. That there is none is no error.
    pub async fn remove_socket(&mut self, name: &str) {
        let id = json!({ "id": chardev_id(name) });
        if let Err(error) = self.execute("chardev-remove", id).await {
            log::debug!("{error}");
        }
    }
}

async fn read<F, Fut>(reader: OwnedReadHalf, replies: mpsc::Sender<Value>, events: F)
where
    F: Fn(MachineEvent) -> Fut,
    Fut: Future<Output = ()>,
{
    let mut reader = BufReader::new(reader);
    let mut pace = Pace::default();
    loop {
        let mut line = String::new();
        let read = (&mut reader).take(LONGEST_LINE).read_line(&mut line).await;
        if !matches!(read, Ok(length) if length > 0) {
            break;
        }
        let Ok(message) = serde_json::from_str::<Value>(&line) else {
            break;
        };
        if let Some(event) = event_of(&message) {
            tokio::time::sleep(pace.wait(Instant::now())).await;
            events(event).await;
        } else if message.get("id").is_some() && replies.send(message).await.is_err() {
            // Nobody sends commands any more; the connection is closed by its other half.
            return;
        }
    }
    events(MachineEvent::Closed).await;
}

/// How often something happens: a monitor that a guest has taken over may tell of anything without
/// end, and each event costs the manager a look at all of the guest.
#[derive(Debug, Default)]
struct Pace {
    /// When the second began that is counted.
    since: Option<Instant>,
    count: u32,
}

impl Pace {
    /// How long something that happens now has to wait.
    fn wait(&mut self, now: Instant) -> Duration {
        let second = Duration::from_secs(1);
        let since = *self.since.get_or_insert(now);
        let passed = now.saturating_duration_since(since);
        if passed < second && self.count < EVENTS {
            self.count = self.count.saturating_add(1);
            return Duration::ZERO;
        }
        let wait = second.saturating_sub(passed);
        (self.since, self.count) = (now.checked_add(wait), 1);
        wait
    }
}

fn event_of(message: &Value) -> Option<MachineEvent> {
    let data = |key: &str| message.get("data")?.get(key)?.as_str();
    match message.get("event")?.as_str()? {
        "SHUTDOWN" => Some(MachineEvent::Shutdown(sentence(
            data("reason").unwrap_or("unknown"),
            TOLD,
        ))),
        "GUEST_PANICKED" => Some(MachineEvent::Panicked),
        "RESET" => Some(MachineEvent::Reset),
        "STOP" => Some(MachineEvent::Stopped),
        "RESUME" => Some(MachineEvent::Resumed),
        "DEVICE_DELETED" => data("device")?
            .strip_prefix(&device_id(""))
            .map(|name| MachineEvent::DeviceGone(name.to_owned())),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::net::UnixListener;

    /// A monitor that answers every command after it was greeted, and tells of what happens.
    async fn monitor(listener: UnixListener) {
        let (stream, _) = listener.accept().await.unwrap();
        let (reader, mut writer) = stream.into_split();
        writer.write_all(b"{\"QMP\": {}}\n").await.unwrap();
        let mut lines = BufReader::new(reader).lines();
        while let Some(line) = lines.next_line().await.unwrap() {
            let request: Value = serde_json::from_str(&line).unwrap();
            let id = &request["id"];
            let text = match request["execute"].as_str().unwrap() {
                "query-status" => {
                    let late = json!({ "return": {}, "id": 0 });
                    let event = json!({ "event": "SHUTDOWN", "data": { "reason": "guest-reset" } });
                    let answer = json!({ "return": { "running": false }, "id": id });
                    format!("{late}\n{event}\n{answer}\n")
                }
                "device_del" => format!(
                    "{}\n{}\n",
                    json!({ "event": "DEVICE_DELETED", "data": { "device": "device-cabin" } }),
                    json!({ "error": { "desc": "busy" }, "id": id })
                ),
                "quit" => return,
                _ => format!("{}\n", json!({ "return": {}, "id": id })),
            };
            writer.write_all(text.as_bytes()).await.unwrap();
        }
    }

    #[tokio::test]
    async fn answers_events_and_refusals_are_told_apart() {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("qmp");
        let listener = UnixListener::bind(&socket).unwrap();
        let monitor = tokio::spawn(monitor(listener));
        let (sender, mut events) = mpsc::channel(8);
        let tell = move |event| {
            let sender = sender.clone();
            async move { sender.send(event).await.unwrap() }
        };
        let mut qmp = Qmp::connect(&socket, tell).await.unwrap();
        assert!(qmp.is_paused().await.unwrap());
        assert_eq!(
            events.recv().await,
            Some(MachineEvent::Shutdown("guest-reset".to_owned()))
        );
        let refused = qmp.ask_for_device("cabin").await.unwrap_err();
        assert_eq!(refused.to_string(), "QEMU refused device_del: busy");
        assert_eq!(
            events.recv().await,
            Some(MachineEvent::DeviceGone("cabin".to_owned()))
        );
        let gone = qmp.execute("quit", json!({})).await.unwrap_err();
        assert!(matches!(gone, QmpError::Gone(_)), "{gone}");
        assert_eq!(events.recv().await, Some(MachineEvent::Closed));
        monitor.await.unwrap();
    }

    #[test]
    fn what_a_monitor_says_is_told_without_what_a_terminal_or_the_bus_would_stumble_over() {
        let hostile = "down\u{0}\u{1b}[2J\n".repeat(1000);
        let event = json!({ "event": "SHUTDOWN", "data": { "reason": hostile } });
        let Some(MachineEvent::Shutdown(reason)) = event_of(&event) else {
            panic!("no event");
        };
        assert!(!reason.contains(['\0', '\u{1b}', '\n']), "{reason}");
        assert_eq!(reason.chars().count(), TOLD);
    }

    #[test]
    fn a_monitor_that_tells_of_events_without_end_is_heard_in_measure() {
        let began = Instant::now();
        let mut pace = Pace::default();
        let mut now = began;
        for _ in 0..EVENTS {
            assert_eq!(pace.wait(now), Duration::ZERO);
        }
        for seconds in 1..4 {
            for _ in 0..EVENTS {
                now += pace.wait(now);
            }
            assert_eq!(now, began + Duration::from_secs(seconds));
        }
        assert_eq!(pace.wait(now + Duration::from_secs(60)), Duration::ZERO);
    }

    #[tokio::test]
    async fn a_connection_that_is_given_up_is_closed_though_the_monitor_keeps_its_end() {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("qmp");
        let listener = UnixListener::bind(&socket).unwrap();
        let greeted = tokio::spawn(async move {
            let (stream, _) = listener.accept().await.unwrap();
            let (reader, mut writer) = stream.into_split();
            let mut lines = BufReader::new(reader).lines();
            lines.next_line().await.unwrap();
            let answer = json!({ "return": {}, "id": 1 });
            let answer = format!("{answer}\n");
            writer.write_all(answer.as_bytes()).await.unwrap();
            // The manager's own end is closed whole: there is nobody to write to.
            while writer.write_all(b"{}\n").await.is_ok() {
                tokio::task::yield_now().await;
            }
        });
        let qmp = Qmp::connect(&socket, |_| async {}).await.unwrap();
        drop(qmp);
        tokio::time::timeout(Duration::from_secs(60), greeted)
            .await
            .unwrap()
            .unwrap();
    }

    #[tokio::test]
    async fn a_monitor_that_is_not_there_is_said_to_be_gone() {
        let nowhere = Path::new("/nowhere/qmp");
        let error = Qmp::connect(nowhere, |_| async {}).await.unwrap_err();
        assert!(matches!(error, QmpError::Gone(_)));
    }
}
