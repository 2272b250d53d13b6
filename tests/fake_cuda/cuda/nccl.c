// NCCL, libnccl.so.2. See fake.h. Messages between processes are checked and counted; nothing is sent, as nothing is computed.
#include "fake.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { SUCCESS = 0, INVALID_ARGUMENT = 4 };

typedef struct {
  char bytes[128];
} id;

struct communicator {
  int size, rank;
};

static _Thread_local int depth;

const char *ncclGetErrorString(int code) { return code == SUCCESS ? "no error" : "invalid argument"; }

int ncclGetUniqueId(id *id) {
  memset(id->bytes, 7, sizeof id->bytes);
  return SUCCESS;
}

int ncclCommInitRank(struct communicator **made, int size, id id, int rank) {
  for (size_t i = 0; i < sizeof id.bytes; ++i)
    if (id.bytes[i] != 7) return INVALID_ARGUMENT;
  if (size < 2 || rank < 0 || rank >= size) return INVALID_ARGUMENT;
  *made = malloc(sizeof **made);
  **made = (struct communicator){size, rank};
  return SUCCESS;
}

// One side of a message of bytes (type 0) in device memory, within a group.
static int message(const void *memory, size_t count, int type, int peer, struct communicator *c) {
  const int right = depth == 1 && type == 0 && count > 0 && peer >= 0 && peer < c->size && peer != c->rank;
  if (!right || fake_place(memory) != 1 || fake_place((const char *)memory + count - 1) != 1) return INVALID_ARGUMENT;
  fake_count(&fake_counts.messages);
  return SUCCESS;
}

int ncclSend(const void *memory, size_t count, int type, int peer, struct communicator *c, void *stream) {
  return message(memory, count, type, peer, c);
}

int ncclRecv(void *memory, size_t count, int type, int peer, struct communicator *c, void *stream) {
  return message(memory, count, type, peer, c);
}

int ncclGroupStart(void) {
  ++depth;
  return SUCCESS;
}

int ncclGroupEnd(void) { return --depth == 0 ? SUCCESS : INVALID_ARGUMENT; }
