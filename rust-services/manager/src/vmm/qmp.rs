// SPDX-License-Identifier: Apache-2.0
//! QEMU's monitor protocol, as far as a manager needs it.

use super::qemu::{chardev_arguments, chardev_id, device_id, typed};
use super::{PlannedDevice, device_properties};
use serde_json::{Value, json};
use std::io;
use std::path::Path;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::mpsc;

/// A monitor that does not answer within this time has failed.
const ANSWER: Duration = Duration::from_secs(20);
/// Longer lines are no answers. In bytes.
const LONGEST_LINE: u64 = 4 << 20;

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
    #[error("QEMU did not answer {0} within 20 s")]
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
        let (sender, replies) = mpsc::channel(16);
        tokio::spawn(read(reader, sender, events));
        let mut qmp = Self {
            writer,
            replies,
            last_id: 0,
        };
        qmp.execute("qmp_capabilities", json!({})).await?;
        Ok(qmp)
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
                reason: reason.unwrap_or("no reason").to_owned(),
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
            events(event).await;
        } else if message.get("id").is_some() && replies.send(message).await.is_err() {
            // Nobody sends commands any more; the connection is closed by its other half.
            return;
        }
    }
    events(MachineEvent::Closed).await;
}

fn event_of(message: &Value) -> Option<MachineEvent> {
    let data = |key: &str| message.get("data")?.get(key)?.as_str();
    match message.get("event")?.as_str()? {
        "SHUTDOWN" => Some(MachineEvent::Shutdown(
            data("reason").unwrap_or("unknown").to_owned(),
        )),
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

    #[tokio::test]
    async fn a_monitor_that_is_not_there_is_said_to_be_gone() {
        let nowhere = Path::new("/nowhere/qmp");
        let error = Qmp::connect(nowhere, |_| async {}).await.unwrap_err();
        assert!(matches!(error, QmpError::Gone(_)));
    }
}
