// SPDX-License-Identifier: Apache-2.0

//! The guest's side of a configuration: the fragment of device tree source by which Linux finds
//! the protocols, to be merged into the guest's tree by dtc.

use std::ffi::OsString;
use std::fmt::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use agl_virtio_service::config::{self, Selection};
use agl_virtio_service::{Daemon, Exit, ExitReason};
use clap::Parser;

use crate::config::Config;
use crate::platform::{AgentId, Kind, Platform};
use crate::protocol::PROTOCOLS;
use crate::service::Scmi;

/// The word on the command line.
pub const COMMAND: &str = "dtb-fragment";

/// Print the device tree fragment with which a guest finds what it may use
///
/// Merge it: dtc -I dtb -O dts guest.dtb > guest.dts; agl-virtio-scmi dtb-fragment >> guest.dts;
/// dtc -I dts -O dtb guest.dts > guest-scmi.dtb
#[derive(Debug, Parser)]
#[command(name = "agl-virtio-scmi dtb-fragment")]
struct Arguments {
    /// Read the guest's configuration from this TOML file; without it the built-in platform
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// This device of the file
    #[arg(long, value_name = "NAME")]
    device: Option<String>,
    /// For this agent; without it the first
    #[arg(long, value_name = "NAME")]
    agent: Option<String>,
}

/// Runs the command with the words after it.
pub fn run(words: impl Iterator<Item = OsString>) -> ExitCode {
    let words = std::iter::once(OsString::from(COMMAND)).chain(words);
    let arguments = match Arguments::try_parse_from(words) {
        Ok(arguments) => arguments,
        Err(error) => {
            let exit = if error.use_stderr() {
                Exit::Usage
            } else {
                Exit::Ok
            };
            // Fails where the output is closed, and then nobody reads it anyway.
            let _ = error.print();
            return exit.into();
        }
    };
    let config = match &arguments.config {
        None => Config::default(),
        Some(file) => {
            let selection = Selection {
                device_type: Scmi::TYPE,
                device: arguments.device.as_deref(),
            };
            let read = config::read::<Config>(file, selection).and_then(|(table, config)| {
                table.check(&config)?;
                Ok(config)
            });
            match read {
                Ok(config) => config,
                Err(error) => {
                    eprintln!("{error}");
                    return error.exit().into();
                }
            }
        }
    };
    let platform = config.build();
    let wanted = arguments.agent.as_deref();
    let place = platform
        .agents
        .iter()
        .position(|of| wanted.is_none_or(|name| of.name == name));
    let Some(place) = place else {
        eprintln!("error: there is no agent {}", wanted.unwrap_or_default());
        return Exit::Usage.into();
    };
    print!("{}", fragment(&platform, AgentId::new(place)));
    ExitCode::SUCCESS
}

/// The property by which consumers name a resource of a protocol.
fn cells(protocol: u8) -> Option<&'static str> {
    match protocol {
        0x11 | 0x13 => Some("#power-domain-cells"),
        0x14 => Some("#clock-cells"),
        0x15 => Some("#thermal-sensor-cells"),
        0x16 => Some("#reset-cells"),
        _ => None,
    }
}

/// The fragment for an agent.
#[must_use]
pub fn fragment(platform: &Platform, agent: AgentId) -> String {
    let mut text = String::new();
    // Writing to a string cannot fail.
    let _ = write_fragment(&mut text, platform, agent);
    text
}

fn write_fragment(
    text: &mut String,
    platform: &Platform,
    agent: AgentId,
) -> Result<(), std::fmt::Error> {
    let name = platform
        .agents
        .get(agent.index())
        .map_or("", |agent| agent.name.as_str());
    writeln!(
        text,
        "/* What {name} may use; made by agl-virtio-scmi dtb-fragment. */\n/ {{"
    )?;
    writeln!(
        text,
        "\tfirmware {{\n\t\tscmi {{\n\t\t\tcompatible = \"arm,scmi-virtio\";"
    )?;
    writeln!(
        text,
        "\t\t\t#address-cells = <1>;\n\t\t\t#size-cells = <0>;"
    )?;
    for protocol in PROTOCOLS.iter().skip(1) {
        if !protocol.is_offered(platform, agent) {
            continue;
        }
        let id = protocol.id;
        writeln!(
            text,
            "\n\t\t\tscmi_{id:02x}: protocol@{id:x} {{\n\t\t\t\treg = <{id:#x}>;"
        )?;
        if let Some(cells) = cells(id) {
            writeln!(text, "\t\t\t\t{cells} = <1>;")?;
        }
        for kind in Kind::ALL.into_iter().filter(|kind| kind.protocol() == id) {
            write_resources(text, platform, agent, kind)?;
        }
        writeln!(text, "\t\t\t}};")?;
    }
    writeln!(text, "\t\t}};\n\t}};")?;
    write_cpus(text, platform, agent)?;
    writeln!(text, "}};")
}

/// A comment per resource with the number that consumers write; a regulator for each voltage.
fn write_resources(
    text: &mut String,
    platform: &Platform,
    agent: AgentId,
    kind: Kind,
) -> Result<(), std::fmt::Error> {
    let visible = (0..platform.count(kind)).filter_map(|index| {
        let number = platform.number(agent, kind, index)?;
        Some((number, platform.name(kind, index)?))
    });
    if kind != Kind::Voltage {
        for (number, name) in visible {
            writeln!(
                text,
                "\t\t\t\t/* {number}: {} */",
                name.replace("*/", "* /")
            )?;
        }
        return Ok(());
    }
    writeln!(text, "\t\t\t\tregulators {{")?;
    writeln!(
        text,
        "\t\t\t\t\t#address-cells = <1>;\n\t\t\t\t\t#size-cells = <0>;"
    )?;
    for (number, name) in visible {
        writeln!(
            text,
            "\n\t\t\t\t\tscmi_reg{number}: regulator@{number:x} {{"
        )?;
        writeln!(text, "\t\t\t\t\t\treg = <{number:#x}>;")?;
        let name = name.replace('\\', "\\\\");
        writeln!(text, "\t\t\t\t\t\tregulator-name = \"{name}\";")?;
        let of = platform.voltages.iter().find(|of| of.spec.name == name);
        if let Some((least, most)) = of
            .map(|of| of.volts.bounds())
            .filter(|(least, _)| *least >= 0)
        {
            writeln!(text, "\t\t\t\t\t\tregulator-min-microvolt = <{least}>;")?;
            writeln!(text, "\t\t\t\t\t\tregulator-max-microvolt = <{most}>;")?;
        }
        writeln!(text, "\t\t\t\t\t}};")?;
    }
    writeln!(text, "\t\t\t\t}};")
}

/// Which processors run at which performance domain: for cpufreq.
fn write_cpus(
    text: &mut String,
    platform: &Platform,
    agent: AgentId,
) -> Result<(), std::fmt::Error> {
    let domains: Vec<(u32, &[u32])> = platform
        .performance
        .iter()
        .enumerate()
        .filter(|(_, of)| !of.spec.cpus.is_empty())
        .filter_map(|(index, of)| {
            let number = platform.number(agent, Kind::Performance, index)?;
            Some((number, of.spec.cpus.as_slice()))
        })
        .collect();
    if domains.is_empty() {
        return Ok(());
    }
    writeln!(text, "\n\tcpus {{")?;
    for (number, cpus) in domains {
        for cpu in cpus {
            writeln!(text, "\t\tcpu@{cpu:x} {{")?;
            writeln!(text, "\t\t\tpower-domains = <&scmi_13 {number}>;")?;
            writeln!(text, "\t\t\tpower-domain-names = \"perf\";\n\t\t}};")?;
        }
    }
    writeln!(text, "\t}};")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fragment_has_a_node_for_each_protocol_and_names_what_is_visible() {
        let platform = Config::default().build();
        let text = fragment(&platform, AgentId::new(0));
        for protocol in PROTOCOLS.iter().skip(1) {
            assert!(
                text.contains(&format!("protocol@{:x} {{", protocol.id)),
                "{text}"
            );
        }
        assert!(text.contains("/* 3: pixel */"), "{text}");
        assert!(text.contains("power-domains = <&scmi_13 0>;"), "{text}");
        let braces = |brace| text.matches(brace).count();
        assert_eq!(braces('{'), braces('}'));
    }

    #[test]
    fn what_an_agent_does_not_see_is_not_in_its_tree() {
        let mut config = Config::default();
        config.agents = config.agents();
        config.agents[0].default = crate::platform::Access::Invisible;
        config.agents[0].system_power = crate::platform::SystemRight::None;
        let text = fragment(&config.build(), AgentId::new(0));
        assert!(!text.contains("protocol@"), "{text}");
        assert!(!text.contains("cpu@"), "{text}");
    }
}
