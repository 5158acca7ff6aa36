SUMMARY = "Guests' sound cards in AGL's sound system"
DESCRIPTION = "Lets the streams of guests' sound cards pass WirePlumber without a remembered loudness, brings the ways \
from agl-virtio-snd to PipeWire, and shows a card with a PCM device for each of AGL's roles."
HOMEPAGE = "https://www.automotivelinux.org/"
SECTION = "multimedia"
LICENSE = "MIT"
LIC_FILES_CHKSUM = "file://${COMMON_LICENSE_DIR}/MIT;md5=0835ade698e0bcf8506ecda2f7b4f302"
CVE_PRODUCT = "agl-virtio"

SRC_URI = "\
    file://60-agl-virtio.conf \
    file://guest-roles.toml \
"

S = "${UNPACKDIR}"

inherit features_check

# The same in all images; not allarch, because it names packages of the machine's architecture.
REQUIRED_DISTRO_FEATURES = "pipewire"

do_configure[noexec] = "1"
do_compile[noexec] = "1"

do_install() {
    install -D -m 0644 ${UNPACKDIR}/60-agl-virtio.conf ${D}${sysconfdir}/wireplumber/wireplumber.conf.d/60-agl-virtio.conf
    install -D -m 0644 ${UNPACKDIR}/guest-roles.toml ${D}${datadir}/agl-virtio/examples/guest-roles.toml
}

FILES:${PN} += "${datadir}/agl-virtio"

RDEPENDS:${PN} = "agl-virtio-snd gstreamer1.0-pipewire pipewire-alsa wireplumber"
