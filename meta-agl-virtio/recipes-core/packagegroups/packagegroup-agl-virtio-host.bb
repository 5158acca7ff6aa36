SUMMARY = "What a host of virtual machines needs: device services, QEMU"
DESCRIPTION = "The device services of agl-virtio with their policies, QEMU for this machine's architecture, and what a person \
needs to look into them."
HOMEPAGE = "https://www.automotivelinux.org/"
SECTION = "virtualization"
LICENSE = "MIT"

# QEMU is built for the machine's own processor.
PACKAGE_ARCH = "${TUNE_PKGARCH}"

inherit packagegroup

# Or OE-core's, on wrynose: qemu-system-aarch64. Its queues are shorter.
AGL_VIRTIO_QEMU ?= "agl-virtio-qemu"

RDEPENDS:${PN} = "\
    agl-virtio \
    ${@bb.utils.contains('DISTRO_FEATURES', 'polkit', 'agl-virtio-polkit', '', d)} \
    ${@bb.utils.contains('DISTRO_FEATURES', 'pipewire', 'agl-virtio-audio', '', d)} \
    alsa-utils \
    ${AGL_VIRTIO_QEMU} \
"
