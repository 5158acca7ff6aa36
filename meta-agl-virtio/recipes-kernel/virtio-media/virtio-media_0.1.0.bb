SUMMARY = "Guest driver of virtual cameras and codecs (virtio-media)"
DESCRIPTION = "Makes a virtual machine's media device a V4L2 device, /dev/videoN. Its buffers are the guest's own pages, so \
that MMAP, DMABUF and USERPTR work without shared memory; where the device takes no pages, they are its own, in shared memory."
HOMEPAGE = "https://www.automotivelinux.org/"
SECTION = "kernel"
LICENSE = "GPL-2.0-only"
LIC_FILES_CHKSUM = "file://${COMMON_LICENSE_DIR}/GPL-2.0-only;md5=801f80980d171dd6425610833a22dbe6"
CVE_PRODUCT = "agl-virtio"

inherit module

SRC_URI = "\
    file://command.c \
    file://compat.h \
    file://controls.c \
    file://driver.c \
    file://events.c \
    file://formats.c \
    file://ioctl.c \
    file://Kbuild \
    file://Makefile \
    file://protocol.h \
    file://queue.c \
    file://region.c \
    file://revive.c \
    file://session.c \
    file://virtio_media.h \
"
S = "${UNPACKDIR}"

# Loaded by its alias where the device is.
RPROVIDES:${PN} += "kernel-module-virtio-media"
