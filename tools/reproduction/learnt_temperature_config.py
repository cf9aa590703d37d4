# MMN on captions with temperatures that are learnt; see learnt_temperature.py.
_base_ = '../../configs/mmn_captions.py'

custom_imports = dict(imports=['mmn_plugin', 'reproduction.learnt_temperature'])
model = dict(head=dict(loss_matching=dict(type='LearntTemperatureLoss')))
