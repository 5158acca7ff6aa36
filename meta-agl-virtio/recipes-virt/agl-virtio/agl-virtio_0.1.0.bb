SUMMARY = "VIRTIO device services for virtual machines"
DESCRIPTION = "The host's side of virtual machines' devices, one small vhost-user service each, for any VMM that speaks \
vhost-user; and the keeper, which holds a VMM's connection while its service is restarted or updated."
HOMEPAGE = "https://www.automotivelinux.org/"
SECTION = "virtualization"
CVE_PRODUCT = "agl-virtio"

require agl-virtio-workspace.inc
require agl-virtio-crates.inc
LIC_FILES_CHKSUM = "file://LICENSE;md5=3b83ef96387f14655fc854ddc3c6bd57"

# The workspace lies beside the layer. Folder by folder, because target/ would be hashed and copied too.
FILESEXTRAPATHS:prepend := "${THISDIR}/files:${AGL_VIRTIO_TOPDIR}/rust-services:${AGL_VIRTIO_TOPDIR}:"
SRC_URI += "\
    file://LICENSE;subdir=ws \
    file://agl-guest.conf \
    file://agl-virtio-can-socketcan.conf \
    file://agl-virtio-can@.service \
    file://agl-virtio-can@.socket \
    file://agl-virtio-first.target \
    file://agl-virtio-media@.service \
    file://agl-virtio-media@.socket \
    file://agl-virtio-rpmb@.service \
    file://agl-virtio-rpmb@.socket \
    file://agl-virtio-sandbox.conf \
    file://agl-virtio-scmi-sysfs.conf \
    file://agl-virtio-scmi.tmpfiles \
    file://agl-virtio-scmi@.service \
    file://agl-virtio-scmi@.socket \
    file://agl-virtio-snd@.service \
    file://agl-virtio-snd@.socket \
    file://agl-virtio-video@.service \
    file://agl-virtio-video@.socket \
    file://agl-virtio.tmpfiles \
    file://agl-virtiod.service \
    file://org.automotivelinux.Virtio1.conf \
"

S = "${UNPACKDIR}/ws"

inherit cargo cargo-update-recipe-crates pkgconfig ptest-cargo systemd useradd

# What is built and packaged, of all crates of the workspace.
AGL_VIRTIO_PROGRAMS = "agl-virtio-can agl-virtio-keeper agl-virtio-media agl-virtio-rpmb agl-virtio-scmi agl-virtio-selftest agl-virtio-snd agl-virtioctl agl-virtiod"
# Codecs are GStreamer's, and there are none without it.
AGL_VIRTIO_PROGRAMS += "${@bb.utils.contains('PACKAGECONFIG', 'gstreamer', 'agl-virtio-video', '', d)}"
AGL_VIRTIO_RUST = "1.85"

python () {
    rust = (d.getVar("RUSTVERSION") or "").rstrip("%")
    least = d.getVar("AGL_VIRTIO_RUST")
    if rust and bb.utils.vercmp_string_op(rust, least, "<"):
        raise bb.parse.SkipRecipe(
            "needs Rust %s, and this build has %s: add meta-lts-mixins, branch %s/rust, to the layers"
            % (least, rust, d.getVar("LAYERSERIES_CORENAMES").split()[0]))
}

PACKAGECONFIG ??= "alsa gstreamer"
PACKAGECONFIG[alsa] = "--features=agl-virtio-snd/alsa,,alsa-lib"
PACKAGECONFIG[gstreamer] = "--features=agl-virtio-media/gstreamer --features=agl-virtio-snd/gstreamer,,gstreamer1.0 gstreamer1.0-plugins-base"

# Tests compare with what GStreamer itself makes of a stream, whatever the services have.
DEPENDS += "${@bb.utils.contains('PTEST_ENABLED', '1', 'gstreamer1.0 gstreamer1.0-plugins-base', '', d)}"

CARGO_BUILD_FLAGS:append = " --no-default-features --features=agl-virtio-rpmb/service ${@' '.join('-p ' + p for p in d.getVar('AGL_VIRTIO_PROGRAMS').split())}"

# The class would install every executable and library that the workspace makes.
do_install() {
    for program in ${AGL_VIRTIO_PROGRAMS}; do
        install -D -m 0755 "${B}/target/${CARGO_TARGET_SUBDIR}/$program" "${D}${bindir}/$program"
    done
    install -D -m 0755 "${B}/target/${CARGO_TARGET_SUBDIR}/agl-virtio-rpmb-tool" "${D}${bindir}/agl-virtio-rpmb-tool"
    for unit in ${UNPACKDIR}/agl-virtio*.service ${UNPACKDIR}/agl-virtio*.socket ${UNPACKDIR}/agl-virtio*.target; do
        install -D -m 0644 "$unit" "${D}${systemd_system_unitdir}/${unit##*/}"
    done
    install -D -m 0644 ${UNPACKDIR}/agl-guest.conf ${D}${systemd_system_unitdir}/agl-guest@.service.d/sandbox.conf
    install -D -m 0644 ${UNPACKDIR}/agl-virtio-sandbox.conf ${D}${systemd_system_unitdir}/agl-virtio-.service.d/sandbox.conf
    install -D -m 0644 ${UNPACKDIR}/agl-virtio-can-socketcan.conf ${D}${systemd_system_unitdir}/agl-virtio-can@.service.d/socketcan.conf
    install -D -m 0644 ${UNPACKDIR}/agl-virtio-scmi-sysfs.conf ${D}${systemd_system_unitdir}/agl-virtio-scmi@.service.d/sysfs.conf
    for name in agl-virtio agl-virtio-scmi; do
        install -D -m 0644 "${UNPACKDIR}/$name.tmpfiles" "${D}${nonarch_libdir}/tmpfiles.d/$name.conf"
    done
    install -D -m 0644 ${UNPACKDIR}/org.automotivelinux.Virtio1.conf \
        ${D}${datadir}/dbus-1/system.d/org.automotivelinux.Virtio1.conf
    install -D -m 0644 ${S}/service/polkit/org.automotivelinux.virtio1.policy \
        ${D}${datadir}/polkit-1/actions/org.automotivelinux.virtio1.policy
    install -d -m 0755 ${D}${sysconfdir}/agl-virtio ${D}${sysconfdir}/agl-virtio/guests.d
    # Made by tests of the workspace: the programs of another machine cannot be asked for them here.
    install -d -m 0755 ${D}${mandir}/man1 ${D}${mandir}/man8
    install -m 0644 ${S}/ctl/pages/*.1 ${D}${mandir}/man1/
    install -m 0644 ${S}/manager/pages/agl-virtiod.8 ${D}${mandir}/man8/
    install -D -m 0644 ${S}/ctl/pages/agl-virtioctl.bash ${D}${datadir}/bash-completion/completions/agl-virtioctl
    install -D -m 0644 ${S}/ctl/pages/agl-virtioctl.fish ${D}${datadir}/fish/vendor_completions.d/agl-virtioctl.fish
    install -D -m 0644 ${S}/ctl/pages/_agl-virtioctl ${D}${datadir}/zsh/site-functions/_agl-virtioctl
}

PACKAGES =+ "${PN}-can ${PN}-common ${PN}-ctl ${PN}-keeper ${PN}-manager ${PN}-media ${PN}-rpmb ${PN}-rpmb-tool ${PN}-scmi ${PN}-selftest ${PN}-snd ${PN}-video"

SUMMARY:${PN}-can = "VIRTIO CAN device service"
SUMMARY:${PN}-common = "What all VIRTIO device services share: supervision, D-Bus policy, polkit action, folders"
SUMMARY:${PN}-ctl = "Guests and their virtual devices at a terminal"
SUMMARY:${PN}-keeper = "Holds a VMM's connection while its device service comes and goes"
SUMMARY:${PN}-manager = "Defines, starts and supervises guests, and shows them on D-Bus"
SUMMARY:${PN}-media = "VIRTIO media device service: cameras and codecs"
SUMMARY:${PN}-rpmb = "VIRTIO RPMB device service: replay-protected memory blocks"
SUMMARY:${PN}-rpmb-tool = "Programs, reads and writes an RPMB device, in a guest or on a host"
SUMMARY:${PN}-scmi = "VIRTIO SCMI platform service: clocks, power, performance, sensors, resets by policy"
SUMMARY:${PN}-selftest = "Checks a guest's virtio devices from inside the guest: TAP or JSON"
SUMMARY:${PN}-snd = "VIRTIO sound device service"
SUMMARY:${PN}-video = "VIRTIO video device service: hardware codecs"

# ${PN} itself is all of them.
ALLOW_EMPTY:${PN} = "1"
RDEPENDS:${PN} = "${PN}-can ${PN}-ctl ${PN}-keeper ${PN}-manager ${PN}-media ${PN}-rpmb ${PN}-scmi ${PN}-snd \
    ${@bb.utils.contains('PACKAGECONFIG', 'gstreamer', '${PN}-video', '', d)}"

FILES:${PN}-can = "\
    ${bindir}/agl-virtio-can \
    ${systemd_system_unitdir}/agl-virtio-can@.service \
    ${systemd_system_unitdir}/agl-virtio-can@.socket \
    ${systemd_system_unitdir}/agl-virtio-can@.service.d \
"
RDEPENDS:${PN}-can = "${PN}-common ${PN}-keeper"

FILES:${PN}-common = "\
    ${datadir}/dbus-1/system.d \
    ${datadir}/polkit-1/actions \
    ${nonarch_libdir}/tmpfiles.d/agl-virtio.conf \
    ${sysconfdir}/agl-virtio \
    ${systemd_system_unitdir}/agl-virtio-.service.d \
    ${systemd_system_unitdir}/agl-virtio-first.target \
"

# Manual pages are in ${PN}-doc, as the manual pages of all recipes.
FILES:${PN}-ctl = "\
    ${bindir}/agl-virtioctl \
    ${datadir}/bash-completion \
    ${datadir}/fish \
    ${datadir}/zsh \
"

FILES:${PN}-keeper = "${bindir}/agl-virtio-keeper"
RDEPENDS:${PN}-keeper = "${PN}-common"

FILES:${PN}-manager = "\
    ${bindir}/agl-virtiod \
    ${systemd_system_unitdir}/agl-guest@.service.d \
    ${systemd_system_unitdir}/agl-virtiod.service \
"
RDEPENDS:${PN}-manager = "${PN}-common ${PN}-keeper"

# Parsers (bad), VP8 and VP9 (good), and what every pipeline has (base). H.264 and HEVC in software are under licences that an
# image has to accept (gstreamer1.0-libav, gstreamer1.0-plugins-ugly), or come from the board's own elements.
AGL_VIRTIO_CODECS = "gstreamer1.0-plugins-base gstreamer1.0-plugins-good gstreamer1.0-plugins-bad"

FILES:${PN}-media = "${bindir}/agl-virtio-media ${systemd_system_unitdir}/agl-virtio-media@.service ${systemd_system_unitdir}/agl-virtio-media@.socket"
RDEPENDS:${PN}-media = "${PN}-common ${PN}-keeper"
RRECOMMENDS:${PN}-media = "${@bb.utils.contains('PACKAGECONFIG', 'gstreamer', d.getVar('AGL_VIRTIO_CODECS'), '', d)}"

FILES:${PN}-rpmb = "${bindir}/agl-virtio-rpmb ${systemd_system_unitdir}/agl-virtio-rpmb@.service ${systemd_system_unitdir}/agl-virtio-rpmb@.socket"
RDEPENDS:${PN}-rpmb = "${PN}-common ${PN}-keeper"

FILES:${PN}-rpmb-tool = "${bindir}/agl-virtio-rpmb-tool"

FILES:${PN}-scmi = "\
    ${bindir}/agl-virtio-scmi \
    ${nonarch_libdir}/tmpfiles.d/agl-virtio-scmi.conf \
    ${systemd_system_unitdir}/agl-virtio-scmi@.service \
    ${systemd_system_unitdir}/agl-virtio-scmi@.socket \
    ${systemd_system_unitdir}/agl-virtio-scmi@.service.d \
"
RDEPENDS:${PN}-scmi = "${PN}-common ${PN}-keeper"

FILES:${PN}-selftest = "${bindir}/agl-virtio-selftest"
RDEPENDS:${PN}-selftest = "${PN}-rpmb-tool"
# What it plays, records and sends with; a guest without such a device does without.
RRECOMMENDS:${PN}-selftest = "alsa-utils can-utils iproute2 v4l-utils"

FILES:${PN}-snd = "${bindir}/agl-virtio-snd ${systemd_system_unitdir}/agl-virtio-snd@.service ${systemd_system_unitdir}/agl-virtio-snd@.socket"
RDEPENDS:${PN}-snd = "${PN}-common ${PN}-keeper"
RRECOMMENDS:${PN}-snd = "${@bb.utils.contains('PACKAGECONFIG', 'gstreamer', \
    'gstreamer1.0-plugins-base gstreamer1.0-plugins-good', '', d)}"

# An instance is a guest: nobody but the integrator knows which there are.
FILES:${PN}-video = "${bindir}/agl-virtio-video ${systemd_system_unitdir}/agl-virtio-video@.service ${systemd_system_unitdir}/agl-virtio-video@.socket"
RDEPENDS:${PN}-video = "${PN}-common ${PN}-keeper"
RRECOMMENDS:${PN}-video = "${AGL_VIRTIO_CODECS}"

SYSTEMD_PACKAGES = "${PN}-can ${PN}-common ${PN}-manager ${PN}-media ${PN}-rpmb ${PN}-scmi ${PN}-snd ${PN}-video"
SYSTEMD_SERVICE:${PN}-can = "agl-virtio-can@.service agl-virtio-can@.socket"
SYSTEMD_SERVICE:${PN}-common = "agl-virtio-first.target"
SYSTEMD_SERVICE:${PN}-manager = "agl-virtiod.service"
SYSTEMD_SERVICE:${PN}-media = "agl-virtio-media@.service agl-virtio-media@.socket"
SYSTEMD_SERVICE:${PN}-rpmb = "agl-virtio-rpmb@.service agl-virtio-rpmb@.socket"
SYSTEMD_SERVICE:${PN}-scmi = "agl-virtio-scmi@.service agl-virtio-scmi@.socket"
SYSTEMD_SERVICE:${PN}-video = "agl-virtio-video@.service agl-virtio-video@.socket"
SYSTEMD_SERVICE:${PN}-snd = "agl-virtio-snd@.service agl-virtio-snd@.socket"
SYSTEMD_AUTO_ENABLE = "disable"

# agl-virtio: who may connect to devices' sockets. pipewire: who may reach AGL's sound server.
USERADD_PACKAGES = "${PN}-can ${PN}-common ${PN}-media ${PN}-rpmb ${PN}-scmi ${PN}-snd ${PN}-video"
GROUPADD_PARAM:${PN}-can = "--system agl-virtio"
GROUPADD_PARAM:${PN}-common = "--system agl-virtio"
GROUPADD_PARAM:${PN}-media = "--system agl-virtio; --system pipewire"
GROUPADD_PARAM:${PN}-rpmb = "--system agl-virtio"
GROUPADD_PARAM:${PN}-scmi = "--system agl-virtio"
GROUPADD_PARAM:${PN}-video = "--system agl-virtio"
GROUPADD_PARAM:${PN}-snd = "--system agl-virtio; --system pipewire"
AGL_VIRTIO_USER = "--system --no-create-home --home-dir /nonexistent --shell /sbin/nologin --gid agl-virtio"
USERADD_PARAM:${PN}-can = "${AGL_VIRTIO_USER} agl-virtio-can"
USERADD_PARAM:${PN}-media = "${AGL_VIRTIO_USER} --groups pipewire,video agl-virtio-media"
USERADD_PARAM:${PN}-rpmb = "${AGL_VIRTIO_USER} agl-virtio-rpmb"
USERADD_PARAM:${PN}-scmi = "${AGL_VIRTIO_USER} agl-virtio-scmi"
USERADD_PARAM:${PN}-video = "${AGL_VIRTIO_USER} --groups video agl-virtio-video"
USERADD_PARAM:${PN}-snd = "${AGL_VIRTIO_USER} --groups audio,pipewire agl-virtio-snd"
