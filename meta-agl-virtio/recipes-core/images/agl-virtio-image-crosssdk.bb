SUMMARY = "SDK for programs that run beside the device services"
DESCRIPTION = "The cross toolchain with Rust, and the headers and libraries of agl-virtio-image: bitbake -c populate_sdk."
HOMEPAGE = "https://www.automotivelinux.org/"
SECTION = "virtualization"
LICENSE = "MIT"

require agl-virtio-image.inc

inherit agl-crosssdk

TOOLCHAIN_HOST_TASK:append = " packagegroup-rust-cross-canadian-${MACHINE}"
