/* baton.h: everything a service needs. */
#ifndef BATON_H
#define BATON_H

#include <baton/connection.h>
#include <baton/http.h>
#include <baton/log.h>
#include <baton/module.h>
#include <baton/timer.h>
#include <baton/types.h>
#include <baton/version.h>
#include <baton/worker.h>

#endif
