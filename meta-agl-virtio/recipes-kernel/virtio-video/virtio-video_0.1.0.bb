SUMMARY = "Guest driver of video codecs (virtio-video, draft v5)"
DESCRIPTION = "Makes a virtual machine's video decoder and encoder memory-to-memory devices of V4L2, as GStreamer's v4l2 \
elements and FFmpeg's v4l2m2m codecs use them. Linux has no such driver."
HOMEPAGE = "https://www.automotivelinux.org/"
SECTION = "kernel"
LICENSE = "GPL-2.0-only"
LIC_FILES_CHKSUM = "file://${COMMON_LICENSE_DIR}/GPL-2.0-only;md5=801f80980d171dd6425610833a22dbe6"
CVE_PRODUCT = "agl-virtio"

inherit module

SRC_URI = "\
    file://buffers.c \
    file://caps.c \
    file://commands.c \
    file://controls.c \
    file://core.c \
    file://driver.h \
    file://events.c \
    file://flow.c \
    file://formats.c \
    file://ioctls.c \
    file://negotiation.c \
    file://objects.c \
    file://queue.c \
    file://selection.c \
    file://session.c \
    file://stream.c \
    file://wire.h \
    file://Kbuild \
    file://Makefile \
"
S = "${UNPACKDIR}"

# Loaded by its alias where the device is.
RPROVIDES:${PN} += "kernel-module-virtio-video"
