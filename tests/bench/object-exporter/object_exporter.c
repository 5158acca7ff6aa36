// SPDX-License-Identifier: GPL-2.0
/*
 * Stands in for a driver such as virtio-gpu, which the bench's kernel has not:
 * dma-bufs that are objects of another virtio device, under names that a program
 * gives them. Their memory is the host's; there are no pages of the guest behind
 * them, so that whoever wants some is refused.
 *
 * Of what the kernel has for that (CONFIG_VIRTIO_DMA_SHARED_BUFFER, which only
 * virtio-gpu brings) the functions of importers are here too.
 */

#include <linux/dma-buf.h>
#include <linux/fs.h>
#include <linux/miscdevice.h>
#include <linux/module.h>
#include <linux/slab.h>
#include <linux/uaccess.h>
#include <linux/virtio_dma_buf.h>

MODULE_IMPORT_NS("DMA_BUF");

/* As the programs of the bench have it. */
struct object_wish {
	__u8 uuid[16];
	__u64 size;
};

#define OBJECT_EXPORT	_IOW('o', 1, struct object_wish)

static struct sg_table *object_map(struct dma_buf_attachment *attachment,
				   enum dma_data_direction direction)
{
	return ERR_PTR(-EOPNOTSUPP);
}

static void object_unmap(struct dma_buf_attachment *attachment,
			 struct sg_table *table,
			 enum dma_data_direction direction)
{
}

static void object_release(struct dma_buf *dbuf)
{
	kfree(dbuf->priv);
}

static int object_uuid(struct dma_buf *dbuf, uuid_t *uuid)
{
	*uuid = *(uuid_t *)dbuf->priv;
	return 0;
}

static const struct virtio_dma_buf_ops object_ops = {
	.ops = {
		.attach = virtio_dma_buf_attach,
		.map_dma_buf = object_map,
		.unmap_dma_buf = object_unmap,
		.release = object_release,
	},
	.get_uuid = object_uuid,
};

int virtio_dma_buf_attach(struct dma_buf *dbuf,
			  struct dma_buf_attachment *attachment)
{
	return 0;
}
EXPORT_SYMBOL(virtio_dma_buf_attach);

bool is_virtio_dma_buf(struct dma_buf *dbuf)
{
	return dbuf->ops->attach == virtio_dma_buf_attach;
}
EXPORT_SYMBOL(is_virtio_dma_buf);

int virtio_dma_buf_get_uuid(struct dma_buf *dbuf, uuid_t *uuid)
{
	const struct virtio_dma_buf_ops *ops =
		container_of(dbuf->ops, const struct virtio_dma_buf_ops, ops);

	return is_virtio_dma_buf(dbuf) ? ops->get_uuid(dbuf, uuid) : -EINVAL;
}
EXPORT_SYMBOL(virtio_dma_buf_get_uuid);

static long object_ioctl(struct file *file, unsigned int request,
			 unsigned long argument)
{
	DEFINE_DMA_BUF_EXPORT_INFO(info);
	struct object_wish wish;
	struct dma_buf *dbuf;
	int fd;

	if (request != OBJECT_EXPORT)
		return -ENOTTY;
	if (copy_from_user(&wish, (void __user *)argument, sizeof(wish)))
		return -EFAULT;
	info.ops = &object_ops.ops;
	info.size = wish.size;
	info.flags = O_RDWR | O_CLOEXEC;
	info.priv = kmemdup(wish.uuid, sizeof(wish.uuid), GFP_KERNEL);
	if (!info.priv)
		return -ENOMEM;
	dbuf = dma_buf_export(&info);
	if (IS_ERR(dbuf)) {
		kfree(info.priv);
		return PTR_ERR(dbuf);
	}
	fd = dma_buf_fd(dbuf, O_CLOEXEC);
	if (fd < 0)
		dma_buf_put(dbuf);
	return fd;
}

static const struct file_operations object_files = {
	.owner = THIS_MODULE,
	.unlocked_ioctl = object_ioctl,
};

static struct miscdevice object_device = {
	.minor = MISC_DYNAMIC_MINOR,
	.name = "object-exporter",
	.fops = &object_files,
};
module_misc_device(object_device);

MODULE_DESCRIPTION("Objects of a virtio device, for tests");
MODULE_AUTHOR("The agl-virtio authors");
MODULE_LICENSE("GPL");
