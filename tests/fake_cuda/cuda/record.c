// What the fake knows: counts, memory, devices. See fake.h.
#define _GNU_SOURCE
#include "fake.h"

#include <execinfo.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct fake_counts fake_counts;
static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;

void fake_lock(void) { pthread_mutex_lock(&mutex); }
void fake_unlock(void) { pthread_mutex_unlock(&mutex); }

void fake_count(long *count) {
  fake_lock();
  ++*count;
  fake_unlock();
}

static void trace(const char *what) {
  if (!getenv("FAKE_CUDA_TRACE")) return;
  void *frames[32];
  const int count = backtrace(frames, 32);
  fprintf(stderr, "fake CUDA: %s\n", what);
  backtrace_symbols_fd(frames + 1, count - 1, 2);
}

void fake_wait(const char *function) {
  fake_lock();
  ++fake_counts.waits;
  fake_counts.waited = fake_counts.launches;
  fake_unlock();
  trace(function);
}

void fake_report(const char *when) {
  const char *path = getenv("FAKE_CUDA_LOG");
  FILE *log = path ? fopen(path, "a") : NULL;
  if (!log) return;
  fake_lock();
  const struct fake_counts c = fake_counts;
  fake_unlock();
  const char *visible = getenv("CUDA_VISIBLE_DEVICES");
  fprintf(log,
          "{\"when\":\"%s\",\"process\":%d,\"visible\":\"%s\",\"launches\":%ld,\"dnn\":%ld,\"gemms\":%ld,\"memsets\":%ld,"
          "\"to_device\":%ld,\"to_host\":%ld,\"inside\":%ld,\"waits\":%ld,\"aside\":%ld,\"early\":%ld,\"joins\":%ld,\"messages\":%ld,\"pageable\":%ld,\"bytes_to_device\":%zu,\"bytes_to_host\":%zu,"
          "\"peak\":%zu,\"pinned\":%zu}\n",
          when, getpid(), visible ? visible : "all", c.launches, c.dnn, c.gemms, c.memsets, c.to_device, c.to_host, c.inside,
          c.waits, c.aside, c.early, c.joins, c.messages, c.pageable, c.bytes_to_device, c.bytes_to_host, c.peak, c.pinned);
  fclose(log);
}

__attribute__((destructor)) static void end(void) {
  if (fake_counts.used || fake_counts.launches) fake_report("end");
}

size_t fake_total(void) {
  const char *mib = getenv("FAKE_CUDA_MIB");
  return (mib ? strtoull(mib, NULL, 10) : 139ull << 10) << 20;
}

int fake_take(size_t bytes) {
  fake_lock();
  const int fits = fake_counts.used + bytes <= fake_total();
  if (fits) fake_counts.used += bytes;
  if (fake_counts.used > fake_counts.peak) fake_counts.peak = fake_counts.used;
  fake_unlock();
  return fits;
}

void fake_give(size_t bytes) {
  fake_lock();
  fake_counts.used -= bytes;
  fake_unlock();
}

static struct range {
  char *start;
  size_t bytes;
  int pinned;
} *ranges;
static size_t known, room;

void fake_range(void *start, size_t bytes, int pinned) {
  fake_lock();
  if (known == room) ranges = realloc(ranges, (room = 2 * room + 64) * sizeof *ranges);
  ranges[known++] = (struct range){start, bytes, pinned};
  fake_unlock();
}

size_t fake_forget(void *start) {
  size_t bytes = 0;
  fake_lock();
  for (size_t i = 0; i < known && !bytes; ++i)
    if (ranges[i].start == start) {
      bytes = ranges[i].bytes;
      ranges[i] = ranges[--known];
    }
  fake_unlock();
  return bytes;
}

int fake_place(const void *address) {
  int place = 0;
  fake_lock();
  for (size_t i = 0; i < known && !place; ++i)
    if ((char *)address >= ranges[i].start && (char *)address < ranges[i].start + ranges[i].bytes)
      place = ranges[i].pinned ? 2 : 1;
  fake_unlock();
  return place;
}

// A list ends at the first number that is no device, as the real one does. Names count as devices that are there.
int fake_devices(void) {
  const char *all = getenv("FAKE_CUDA_DEVICES"), *visible = getenv("CUDA_VISIBLE_DEVICES");
  const int there = all ? atoi(all) : 1;
  if (!visible) return there;
  int count = 0;
  char *list = strdup(visible), *rest = list, *word;
  while ((word = strsep(&rest, ",")) && *word) {
    char *end;
    const long number = strtol(word, &end, 10);
    if (!*end && (number < 0 || number >= there)) break;
    ++count;
  }
  free(list);
  return count < there ? count : there;
}
