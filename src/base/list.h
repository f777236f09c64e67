/* base/list.h: intrusive doubly linked list with a sentinel head.
 * Knows nothing of what it links; inserting and removing never allocates. */
#ifndef BT_BASE_LIST_H
#define BT_BASE_LIST_H

#include <stdbool.h>
#include <stddef.h>

typedef struct bt_list {
    struct bt_list *next;
    struct bt_list *prev;
} bt_list;

#define bt_container(pointer, type, member) ((type *) (void *) ((char *) (pointer) -offsetof(type, member)))

static inline void bt_list_init(bt_list *list)
{
    list->next = list;
    list->prev = list;
}

static inline bool bt_list_empty(const bt_list *list)
{
    return list->next == list;
}

static inline void bt_list_append(bt_list *head, bt_list *node)
{
    node->prev = head->prev;
    node->next = head;
    head->prev->next = node;
    head->prev = node;
}

/* Removing a node twice is harmless: it is left linked to itself. */
static inline void bt_list_remove(bt_list *node)
{
    node->prev->next = node->next;
    node->next->prev = node->prev;
    bt_list_init(node);
}

static inline bt_list *bt_list_pop(bt_list *head)
{
    bt_list *node = head->next;
    if (node == head)
        return NULL;
    bt_list_remove(node);
    return node;
}

/* Moves every node of `from` to the end of `to`; `from` is empty afterwards. */
static inline void bt_list_move_all(bt_list *to, bt_list *from)
{
    if (bt_list_empty(from))
        return;
    from->next->prev = to->prev;
    to->prev->next = from->next;
    from->prev->next = to;
    to->prev = from->prev;
    bt_list_init(from);
}

/* The body may remove the current node, and no other. */
#define bt_list_each(node, head)                                                                                       \
    for (bt_list *node = (head)->next, *node##_next = node->next; node != (head);                                      \
         node = node##_next, node##_next = node->next)

#endif
