SUMMARY = "What a guest needs to use and to test its virtio devices"
DESCRIPTION = "Drivers that are modules, the self-test, and the usual programs for sound, GPIO, I2C, CAN and \
clocks. Of this project only the self-test and the drivers that the guest's Linux lacks: a guest needs no software of ours."
HOMEPAGE = "https://www.automotivelinux.org/"
SECTION = "virtualization"
LICENSE = "MIT"

# A module's package is of the machine.
PACKAGE_ARCH = "${MACHINE_ARCH}"

inherit packagegroup

# Drivers that neither 6.6 nor 6.18 has. A guest with Linux 7.2 or later has CAN in its kernel: take virtio-can out there.
AGL_VIRTIO_GUEST_DRIVERS ?= "virtio-can virtio-media virtio-rpmb virtio-video"

RDEPENDS:${PN} = "\
    agl-virtio-selftest \
    alsa-utils \
    can-utils \
    i2c-tools \
    iproute2 \
    kernel-modules \
    ${AGL_VIRTIO_GUEST_DRIVERS} \
    libgpiod-tools \
    v4l-utils \
"
