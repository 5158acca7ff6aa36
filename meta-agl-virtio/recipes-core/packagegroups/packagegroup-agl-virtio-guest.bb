SUMMARY = "What a guest needs to use and to test its virtio devices"
DESCRIPTION = "Drivers that are modules, and the usual programs for sound, GPIO, I2C, CAN and clocks. Nothing of it is ours: \
a guest needs no software of this project."
HOMEPAGE = "https://www.automotivelinux.org/"
SECTION = "virtualization"
LICENSE = "MIT"

inherit packagegroup

RDEPENDS:${PN} = "\
    alsa-utils \
    can-utils \
    i2c-tools \
    iproute2 \
    libgpiod-tools \
    kernel-modules \
"
