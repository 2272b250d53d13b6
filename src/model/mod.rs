//! Networks: the residual encoder, its head, the bank.
