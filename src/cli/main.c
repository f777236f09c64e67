/* cli/main.c: the baton command's main.
 * Nothing else: the command is a part of the library that start programs use as well. */
#include <cli/cli.h>

int main(int argc, char **argv)
{
    return bt_command_main(argc, argv);
}
