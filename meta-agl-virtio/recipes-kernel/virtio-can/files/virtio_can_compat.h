/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What the driver of Linux 7.3 finds in its kernel, for older ones. Included
 * before it by the compiler's command line. The Makefile finds out what this
 * kernel has.
 */
#ifndef VIRTIO_CAN_COMPAT_H
#define VIRTIO_CAN_COMPAT_H

#include <linux/stddef.h>
#include <linux/virtio.h>
#include <linux/virtio_config.h>

#ifndef __counted_by_le
#define __counted_by_le(member)
#endif

#ifndef VIRTIO_CAN_HAS_QUEUE_INFO

struct virtqueue_info {
	const char *name;
	vq_callback_t *callback;
	bool ctx;
};

/* The driver has three queues. */
static inline int virtio_can_compat_find_vqs(struct virtio_device *vdev,
					     unsigned int count,
					     struct virtqueue *vqs[],
					     struct virtqueue_info infos[],
					     struct irq_affinity *affinity)
{
	vq_callback_t *callbacks[3] = { };
	const char *names[3] = { };
	unsigned int i;

	if (count > ARRAY_SIZE(names))
		return -EINVAL;
	for (i = 0; i < count; i++) {
		callbacks[i] = infos[i].callback;
		names[i] = infos[i].name;
	}
	return virtio_find_vqs(vdev, count, vqs, callbacks, names, affinity);
}

#define virtio_find_vqs virtio_can_compat_find_vqs

#endif

#endif /* VIRTIO_CAN_COMPAT_H */
