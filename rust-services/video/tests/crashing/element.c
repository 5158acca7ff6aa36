// SPDX-License-Identifier: Apache-2.0

// An element of GStreamer that passes pictures on and crashes with the third one, as a faulty codec does.

#include <gst/gst.h>

static GstStaticPadTemplate sink_template =
	GST_STATIC_PAD_TEMPLATE("sink", GST_PAD_SINK, GST_PAD_ALWAYS, GST_STATIC_CAPS_ANY);
static GstStaticPadTemplate src_template =
	GST_STATIC_PAD_TEMPLATE("src", GST_PAD_SRC, GST_PAD_ALWAYS, GST_STATIC_CAPS_ANY);

typedef struct {
	GstElement element;
	GstPad *src;
	int passed;
} Crashing;

typedef struct {
	GstElementClass element;
} CrashingClass;

G_DEFINE_TYPE(Crashing, crashing, GST_TYPE_ELEMENT)

static GstFlowReturn crashing_chain(GstPad *pad, GstObject *parent, GstBuffer *buffer)
{
	Crashing *self = (Crashing *)parent;

	if (++self->passed == 3) {
		g_printerr("aglcrashing: the third picture\n");
		*(volatile int *)NULL = self->passed;
	}
	return gst_pad_push(self->src, buffer);
}

static void crashing_init(Crashing *self)
{
	GstPad *sink = gst_pad_new_from_static_template(&sink_template, "sink");

	gst_pad_set_chain_function(sink, crashing_chain);
	GST_PAD_SET_PROXY_CAPS(sink);
	GST_PAD_SET_PROXY_ALLOCATION(sink);
	gst_element_add_pad(&self->element, sink);
	self->src = gst_pad_new_from_static_template(&src_template, "src");
	gst_element_add_pad(&self->element, self->src);
}

static void crashing_class_init(CrashingClass *klass)
{
	gst_element_class_add_static_pad_template(&klass->element, &sink_template);
	gst_element_class_add_static_pad_template(&klass->element, &src_template);
	gst_element_class_set_static_metadata(&klass->element, "Crashing element", "Filter", "Crashes with the third picture", "AGL");
}

static gboolean plugin_init(GstPlugin *plugin)
{
	return gst_element_register(plugin, "aglcrashing", GST_RANK_NONE, crashing_get_type());
}

#define PACKAGE "agl-virtio"
GST_PLUGIN_DEFINE(GST_VERSION_MAJOR, GST_VERSION_MINOR, aglcrashing, "Crashes", plugin_init, "1.0", "Apache 2.0", PACKAGE, "https://example.org")
