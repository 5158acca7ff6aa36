// SPDX-License-Identifier: Apache-2.0

use super::*;
use std::path::Path;

const FILE: &str = r#"
[guest]
memory = "256M"
cpus = 2
pinning = [[2], [2, 3]]
hotplug_slots = 1
boot = { kernel = "/Image", initrd = "/initrd", append = "quiet \"x\"" }
disks = [{ path = "/a,b.img", read_only = true }]
serial = [{ file = "/log" }]
arguments = ["-no-reboot"]
machine = { options = { gic-version = "3" }, processor = "cortex-a57", accelerator = "ACCELERATOR" }
attach.cabin = { properties = { indirect_desc = "off" } }
[devices.cabin]
type = "snd"
"#;

fn definition(source: &str) -> Definition {
    Definition::parse(Path::new("/etc/ivi.toml"), source.to_owned()).unwrap()
}

fn plan(definition: &Definition) -> Plan<'_> {
    let devices = definition.devices.iter().map(|device| PlannedDevice {
        name: device.name.clone(),
        front_end: front_end::of(device).unwrap(),
        socket: PathBuf::from(format!("/run/{}.sock", device.name)),
        attachment: definition.attachment(&device.name),
    });
    Plan {
        devices: devices.collect(),
        folder: PathBuf::from("/run/ivi"),
        definition,
    }
}

#[test]
fn qemu_gets_shared_memory_every_device_and_nothing_that_was_not_asked_for() {
    let definition = definition(&FILE.replace("ACCELERATOR", "tcg"));
    let launch = of(VmmKind::Qemu).launch(&plan(&definition)).unwrap();
    let expected = "qemu-system-aarch64|-name|ivi|-nodefaults|-display|none|\
        -machine|virt,gic-version=3,memory-backend=memory|\
        -object|memory-backend-memfd,id=memory,size=256M,share=on|-m|256M|-cpu|cortex-a57|\
        -accel|tcg|-smp|2|-kernel|/Image|-initrd|/initrd|-append|quiet \"x\"|\
        -drive|id=disk0,if=none,format=raw,readonly=on,file=/a,,b.img|\
        -device|virtio-blk-pci,drive=disk0|\
        -chardev|file,id=serial0,path=/log|-serial|chardev:serial0|\
        -qmp|unix:/run/ivi/control,server=on,wait=off|\
        -device|pcie-root-port,id=slot0,chassis=1|\
        -chardev|socket,id=socket-cabin,path=/run/cabin.sock|\
        -device|vhost-user-snd-pci,controls=on,id=device-cabin,chardev=socket-cabin,indirect_desc=off|\
        -no-reboot";
    assert_eq!(launch.command.join("|"), expected);
    assert!(launch.files.is_empty());
}

#[test]
fn a_decoder_an_encoder_and_a_camera_are_attached_as_what_they_are() {
    let source = FILE.replace("ACCELERATOR", "kvm")
        + "[devices.encoder]\ntype = \"video\"\nfunction = \"encoder\"\n[devices.decoder]\ntype = \"video\"\n";
    let camera = definition(&(source + "[devices.rear]\ntype = \"media\"\n"));
    let command = |definition: &Definition| {
        let launch = of(VmmKind::Qemu).launch(&plan(definition)).unwrap();
        launch.command.join("|")
    };
    for device in [
        "virtio-id=31,num_vqs=2,vq_size=1024,config_size=12,id=device-decoder",
        "virtio-id=30,num_vqs=2,vq_size=1024,config_size=12,id=device-encoder",
        "virtio-id=48,num_vqs=2,vq_size=256,config_size=40,id=device-rear",
    ] {
        assert!(command(&camera).contains(device), "{device}");
    }

    let crosvm = of(VmmKind::Crosvm).launch(&plan(&camera)).unwrap();
    let devices = crosvm
        .command
        .iter()
        .filter(|word| word.starts_with("type="));
    let devices: Vec<_> = devices.filter(|word| word.contains("socket=")).collect();
    for (device, name) in [
        ("video-decoder", "decoder"),
        ("video-encoder", "encoder"),
        ("media", "rear"),
    ] {
        let word = format!("type={device},socket=/run/{name}.sock");
        assert!(devices.contains(&&word), "{word}: {devices:?}");
    }

    let xen = of(VmmKind::Xen).launch(&plan(&camera)).unwrap();
    for number in ["device1f", "device1e", "device30"] {
        assert!(xen.files[0].content.contains(number), "{number}");
    }
}

#[test]
fn crosvm_gets_options_in_which_no_path_ends_early_and_refuses_what_it_cannot() {
    let kvm = definition(&FILE.replace("ACCELERATOR", "kvm"));
    let launch = of(VmmKind::Crosvm).launch(&plan(&kvm)).unwrap();
    // As crosvm's source of August 2026 reads them.
    let expected = "crosvm|run|--name|ivi|--socket|/run/ivi/control|--cpus|num-cores=2|\
        --cpu-affinity|0=2:1=2,3|--mem|size=256|\
        --serial|hardware=serial,num=1,type=file,path=/log,console=true|\
        --block|path=\"/a,b.img\",ro=true|--vhost-user|type=sound,socket=/run/cabin.sock|\
        --initrd|/initrd|--params|quiet \"x\"|-no-reboot|/Image";
    assert_eq!(launch.command.join("|"), expected);
    assert!(launch.files.is_empty());

    let tcg = definition(&FILE.replace("ACCELERATOR", "tcg"));
    let error = of(VmmKind::Crosvm).launch(&plan(&tcg)).unwrap_err();
    assert!(error.to_string().contains("emulated processors"), "{error}");
    let can = definition(
        &FILE
            .replace("ACCELERATOR", "kvm")
            .replace("\"snd\"", "\"can\""),
    );
    let error = of(VmmKind::Crosvm).launch(&plan(&can)).unwrap_err();
    assert!(matches!(error, VmmError::NoFrontEnd { .. }), "{error}");
    let listens = FILE
        .replace("ACCELERATOR", "kvm")
        .replace("{ file", "{ listen");
    let error = of(VmmKind::Crosvm)
        .launch(&plan(&definition(&listens)))
        .unwrap_err();
    assert!(
        error.to_string().contains("serial port that listens"),
        "{error}"
    );
    let tree = FILE
        .replace("ACCELERATOR", "kvm")
        .replace("initrd =", "device_tree = \"/t\", initrd =");
    let error = of(VmmKind::Crosvm)
        .launch(&plan(&definition(&tree)))
        .unwrap_err();
    assert!(error.to_string().contains("device tree"), "{error}");
}

#[test]
fn xen_reads_a_generated_domain_configuration_in_which_no_text_ends_early() {
    let guest = definition(&FILE.replace("ACCELERATOR", "auto"));
    let launch = of(VmmKind::Xen).launch(&plan(&guest)).unwrap();
    assert_eq!(
        launch.command[..4],
        ["xl", "create", "-F", "/run/ivi/xl.cfg"]
    );
    let text = &launch.files[0].content;
    for line in [
        "name = \"ivi\"",
        "vcpus = 2",
        "cpus = [ \"2\", \"2,3\" ]",
        "extra = 'quiet \"x\"'",
        "on_crash = \"destroy\"",
    ] {
        assert!(text.contains(&format!("{line}\n")), "{line}\n{text}");
    }
    // xl refuses a specification with a key that it does not know.
    let device = "virtio = [ \"backend=Domain-0,type=virtio,device19,transport=mmio\" ]\n";
    assert!(text.contains(device), "{text}");
    assert!(text.contains("access=ro,target=/a,b.img"), "{text}");

    let tcg = definition(&FILE.replace("ACCELERATOR", "tcg"));
    assert!(of(VmmKind::Xen).launch(&plan(&tcg)).is_err());
    let listens = FILE
        .replace("ACCELERATOR", "auto")
        .replace("{ file", "{ listen");
    assert!(
        of(VmmKind::Xen)
            .launch(&plan(&definition(&listens)))
            .is_err()
    );
}

#[test]
fn xen_refuses_what_its_file_cannot_say_and_leaves_nothing_out() {
    let of_file = |from: &str, to: &str| {
        let text = FILE.replace("ACCELERATOR", "auto").replace(from, to);
        assert!(text.contains(to), "{text}");
        of(VmmKind::Xen).launch(&plan(&definition(&text)))
    };
    let both = of_file("quiet \\\"x\\\"", "quiet \\\"x\\\" it's").unwrap_err();
    assert!(both.to_string().contains("apostrophes"), "{both}");
    let disks: Vec<String> = (0..27).map(|n| format!("{{ path = \"/{n}\" }}")).collect();
    let disks = format!("disks = [{}]\ncpus = 2", disks.join(", "));
    let without = FILE.lines().filter(|line| !line.starts_with("disks"));
    let without: Vec<&str> = without.collect();
    let many = without
        .join("\n")
        .replace("ACCELERATOR", "auto")
        .replace("cpus = 2", &disks);
    let many = of(VmmKind::Xen)
        .launch(&plan(&definition(&many)))
        .unwrap_err();
    assert!(many.to_string().contains("26"), "{many}");
}

#[test]
fn every_monitor_is_asked_in_its_own_words() {
    let guest = definition(&FILE.replace("ACCELERATOR", "auto"));
    let plan = plan(&guest);
    let words = |kind, request| {
        of(kind)
            .command(&plan, request)
            .map(|words| words.join(" "))
    };
    let crosvm = words(VmmKind::Crosvm, Request::PowerDown);
    assert_eq!(crosvm.as_deref(), Some("crosvm powerbtn /run/ivi/control"));
    assert_eq!(words(VmmKind::Crosvm, Request::Reset), None);
    let xen = words(VmmKind::Xen, Request::Resume);
    assert_eq!(xen.as_deref(), Some("xl unpause ivi"));
    assert_eq!(words(VmmKind::Qemu, Request::PowerDown), None);
    assert_eq!(words(VmmKind::Loopback, Request::PowerDown), None);
    assert_eq!(of(VmmKind::Loopback).launch(&plan), Ok(Launch::default()));
}

#[test]
fn properties_of_a_device_that_is_put_in_have_the_types_that_the_monitor_lists() {
    let guest = definition(
        &FILE
            .replace("ACCELERATOR", "auto")
            .replace("\"snd\"", "\"rpmb\""),
    );
    let plan = plan(&guest);
    let mut properties = device_properties(&plan.devices[0], "slot0");
    assert_eq!(properties["virtio-id"], "28");
    let listed = serde_json::json!([
        { "name": "virtio-id", "type": "uint16" },
        { "name": "indirect_desc", "type": "bool" },
        { "name": "bus", "type": "str" },
        { "name": "else", "type": "bool" },
    ]);
    qemu::typed(&mut properties, &listed);
    assert_eq!(properties["virtio-id"], 28);
    assert_eq!(properties["indirect_desc"], false);
    assert_eq!(properties["bus"], "slot0");
    assert_eq!(properties["driver"], "vhost-user-test-device-pci");
}
