// SPDX-License-Identifier: GPL-2.0
/*
 * Sets a trip point of the first sensor, and says in the kernel's log when it is crossed, for the
 * bench: no driver of the kernel's own uses trip points.
 */

#include <linux/bits.h>
#include <linux/err.h>
#include <linux/module.h>
#include <linux/notifier.h>
#include <linux/scmi_protocol.h>
#include <linux/slab.h>

#define TRIP_POINT	1
/* In the sensor's unit, thousandths of a degree. */
#define TRIP_VALUE	80000

/* The notification's description: which point, and whether it was crossed upwards. */
#define TRIP_ID		GENMASK(7, 0)
#define TRIP_UPWARDS	BIT(16)

struct trip {
	struct device *dev;
	struct notifier_block crossed;
};

static const u32 sensor;

static int crossed(struct notifier_block *nb, unsigned long event, void *data)
{
	struct trip *t = container_of(nb, struct trip, crossed);
	struct scmi_sensor_trip_point_report *report = data;
	u32 what = report->trip_point_desc;

	dev_info(t->dev, "trip point %lu crossed %s\n", what & TRIP_ID,
		 what & TRIP_UPWARDS ? "upwards" : "downwards");
	return NOTIFY_OK;
}

static int trip_probe(struct scmi_device *sdev)
{
	const struct scmi_handle *handle = sdev->handle;
	const struct scmi_sensor_proto_ops *ops;
	struct scmi_protocol_handle *ph;
	struct trip *t;
	int ret;

	ops = handle->devm_protocol_get(sdev, SCMI_PROTOCOL_SENSOR, &ph);
	if (IS_ERR(ops))
		return PTR_ERR(ops);
	t = devm_kzalloc(&sdev->dev, sizeof(*t), GFP_KERNEL);
	if (!t)
		return -ENOMEM;
	t->dev = &sdev->dev;
	t->crossed.notifier_call = crossed;
	ret = ops->trip_point_config(ph, sensor, TRIP_POINT, TRIP_VALUE);
	if (ret)
		return ret;
	return handle->notify_ops->devm_event_notifier_register(sdev, SCMI_PROTOCOL_SENSOR,
			SCMI_EVENT_SENSOR_TRIP_POINT_EVENT, &sensor, &t->crossed);
}

static const struct scmi_device_id trip_ids[] = {
	{ SCMI_PROTOCOL_SENSOR, "agl-scmi-trip" },
	{ }
};
MODULE_DEVICE_TABLE(scmi, trip_ids);

static struct scmi_driver trip_driver = {
	.name = "agl-scmi-trip",
	.probe = trip_probe,
	.id_table = trip_ids,
};
module_scmi_driver(trip_driver);

MODULE_DESCRIPTION("Listener to SCMI trip points, for tests");
MODULE_LICENSE("GPL");
