SUMMARY = "Clocks, resets, regulators and power domains of the host for its guests"
DESCRIPTION = "A kernel module that shows in sysfs the clocks, resets, regulators and power domains that its device tree \
node lists, and no others. The SCMI platform service gives them to guests, by policy. Linux has no user interface for them."
HOMEPAGE = "https://www.automotivelinux.org/"
SECTION = "kernel"
LICENSE = "GPL-2.0-only"
LIC_FILES_CHKSUM = "file://${COMMON_LICENSE_DIR}/GPL-2.0-only;md5=801f80980d171dd6425610833a22dbe6"
CVE_PRODUCT = "agl-virtio"

SRC_URI = "\
    file://60-agl-virtio-resources.rules \
    file://Makefile \
    file://agl-virtio-resources.c \
"

S = "${UNPACKDIR}"

inherit module

# The module itself is loaded by the node's compatible string.
do_install:append() {
    install -D -m 0644 ${UNPACKDIR}/60-agl-virtio-resources.rules \
        ${D}${nonarch_base_libdir}/udev/rules.d/60-agl-virtio-resources.rules
}

FILES:${PN} += "${nonarch_base_libdir}/udev/rules.d"

# The rule names the service's user.
RDEPENDS:${PN} = "agl-virtio-scmi"
RPROVIDES:${PN} += "kernel-module-agl-virtio-resources"
