SUMMARY = "What a host of virtual machines needs: device services, QEMU"
DESCRIPTION = "The device services of agl-virtio with their policies, QEMU for this machine's architecture, and what a person \
needs to look into them."
HOMEPAGE = "https://www.automotivelinux.org/"
SECTION = "virtualization"
LICENSE = "MIT"

# QEMU's package has the architecture in its name.
PACKAGE_ARCH = "${TUNE_PKGARCH}"

inherit packagegroup

# As QEMU's package split writes it: x86_64 has an underscore, which package names have not.
AGL_VIRTIO_QEMU ?= "qemu-system-${@d.getVar('TARGET_ARCH').replace('_', '-')}"

RDEPENDS:${PN} = "\
    agl-virtio \
    ${@bb.utils.contains('DISTRO_FEATURES', 'polkit', 'agl-virtio-polkit', '', d)} \
    ${@bb.utils.contains('DISTRO_FEATURES', 'pipewire', 'agl-virtio-audio', '', d)} \
    alsa-utils \
    ${AGL_VIRTIO_QEMU} \
"
