/* SPDX-License-Identifier: GPL-2.0 */
/* What Linux 6.1 to 7.3 call by different names; Kbuild finds out which. */
#ifndef VIRTIO_MEDIA_COMPAT_H
#define VIRTIO_MEDIA_COMPAT_H

#include <linux/fs.h>
#include <linux/mm.h>
#include <linux/slab.h>
#include <linux/virtio_config.h>
#include <media/v4l2-fh.h>
#include <media/videobuf2-v4l2.h>

#ifndef kzalloc_obj
#define kzalloc_obj(object) kzalloc(sizeof(object), GFP_KERNEL)
#endif

static inline struct v4l2_fh *virtio_media_fh(struct file *file)
{
#ifdef VIRTIO_MEDIA_FILE_IN_FH
	return file_to_v4l2_fh(file);
#else
	return file->private_data;
#endif
}

static inline void virtio_media_add_fh(struct v4l2_fh *fh, struct file *file)
{
#ifdef VIRTIO_MEDIA_FILE_IN_FH
	v4l2_fh_add(fh, file);
#else
	file->private_data = fh;
	v4l2_fh_add(fh);
#endif
}

static inline void virtio_media_del_fh(struct v4l2_fh *fh, struct file *file)
{
#ifdef VIRTIO_MEDIA_FILE_IN_FH
	v4l2_fh_del(fh, file);
#else
	v4l2_fh_del(fh);
#endif
}

static inline int virtio_media_find_queues(struct virtio_device *vdev,
					   struct virtqueue *vqs[2],
					   vq_callback_t *command,
					   vq_callback_t *event)
{
#ifdef VIRTIO_MEDIA_QUEUE_INFO
	struct virtqueue_info info[2] = {
		{ "commandq", command },
		{ "eventq", event },
	};

	return virtio_find_vqs(vdev, 2, vqs, info, NULL);
#else
	static const char * const names[2] = { "commandq", "eventq" };
	vq_callback_t *callbacks[2] = { command, event };

	return virtio_find_vqs(vdev, 2, vqs, callbacks, names, NULL);
#endif
}

static inline void virtio_media_change_vma(struct vm_area_struct *vma,
					   unsigned long set, unsigned long clear)
{
#ifdef VIRTIO_MEDIA_VM_FLAGS_MOD
	vm_flags_mod(vma, set, clear);
#else
	vma->vm_flags = (vma->vm_flags | set) & ~clear;
#endif
}

static inline unsigned int virtio_media_count_buffers(struct vb2_queue *q)
{
#ifdef VIRTIO_MEDIA_NUM_BUFFERS
	return vb2_get_num_buffers(q);
#else
	return q->num_buffers;
#endif
}

#endif
