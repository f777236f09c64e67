/* baton/version.h: version of these headers; keep in step with meson.build. */
#ifndef BATON_VERSION_H
#define BATON_VERSION_H

#include <baton/types.h>

#define BATON_VERSION "0.1.0"

/* Version of the library that is running. */
BATON_API const char *baton_version(void);

#endif
